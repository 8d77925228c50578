"""Losses against the papers' objectives: our gradient must be the numerical derivative of the formula as printed."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.config import Loss
from learner.importance import mismatch
from learner.losses import LOSSES, PolicyTokens, RatioLimits, TokenWeights, k3, policy_loss

LOW, HIGH = 0.2, 0.28
gaps = st.floats(-1.5, 1.5).filter(lambda x: min(abs(math.exp(x) - edge) for edge in (0.8, 1.28)) > 1e-3)
signs = st.sampled_from([-1.3, 0.7])


def weights_of(
    loss: Loss, log_ratio_N: torch.Tensor, advantage_N: torch.Tensor, limits: RatioLimits, rows: Sequence[int] = ()
) -> TokenWeights:
    """rows: the rollout of each token; all of one where not given."""
    row_N = torch.tensor(rows or [0] * len(log_ratio_N))
    return LOSSES[loss](PolicyTokens(log_ratio_N, advantage_N, row_N, int(row_N.max()) + 1), limits)


def gradient(loss: Loss, now: list[float], old: list[float], advantage: list[float], cap: float | None) -> list[float]:
    """d loss / d log pi_now of each token, all of one rollout."""
    logprob_N = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    advantage_N, old_N = torch.tensor(advantage, dtype=torch.float64), torch.tensor(old, dtype=torch.float64)
    weights = weights_of(loss, logprob_N.detach() - old_N, advantage_N, RatioLimits(LOW, HIGH, cap))
    policy_loss(logprob_N, weights.weight_N, advantage_N).sum().backward()  # type: ignore[no-untyped-call]
    assert logprob_N.grad is not None
    return [float(g) for g in logprob_N.grad]


def numeric(objective: Callable[[list[float]], float], now: list[float]) -> list[float]:
    step, slopes = 1e-6, []
    for i in range(len(now)):
        up, down = list(now), list(now)
        up[i] += step
        down[i] -= step
        slopes.append((objective(up) - objective(down)) / (2 * step))
    return slopes


def clip(ratio: float) -> float:
    return min(max(ratio, 1 - LOW), 1 + HIGH)


@given(st.lists(st.tuples(gaps, signs), min_size=1, max_size=6))
def test_clipped_is_ppos_objective(tokens: list[tuple[float, float]]) -> None:
    now, advantage = [-2 + gap for gap, _ in tokens], [a for _, a in tokens]

    def ppo(logprobs: list[float]) -> float:
        ratios = [math.exp(value + 2) for value in logprobs]
        return -sum(min(r * a, clip(r) * a) for r, a in zip(ratios, advantage, strict=True))

    ours = gradient("clipped", now, [-2.0] * len(now), advantage, cap=None)
    np.testing.assert_allclose(ours, numeric(ppo, now), atol=1e-5)


@given(st.lists(gaps, min_size=1, max_size=6), signs)
def test_gspo_is_the_sequence_objective_times_its_length(rollout_gaps: list[float], advantage: float) -> None:
    mean = sum(rollout_gaps) / len(rollout_gaps)
    if min(abs(math.exp(mean) - 0.8), abs(math.exp(mean) - 1.28)) < 1e-3:
        return
    now = [-2 + gap for gap in rollout_gaps]

    def gspo(logprobs: list[float]) -> float:
        ratio = math.exp(sum(value + 2 for value in logprobs) / len(logprobs))
        return -min(ratio * advantage, clip(ratio) * advantage) * len(logprobs)

    ours = gradient("gspo", now, [-2.0] * len(now), [advantage] * len(now), cap=None)
    np.testing.assert_allclose(ours, numeric(gspo, now), atol=1e-5)


def test_gspo_takes_each_rollouts_own_mean() -> None:
    log_ratio_N, advantage_N = torch.tensor([0.1, 0.3, -0.2]), torch.ones(3)
    weight_N = weights_of("gspo", log_ratio_N, advantage_N, RatioLimits(LOW, HIGH), [0, 0, 1]).weight_N
    np.testing.assert_allclose(weight_N, [math.exp(0.2), math.exp(0.2), math.exp(-0.2)], rtol=1e-6)


def test_cispo_weighs_every_token_and_silences_none() -> None:
    ours = gradient("cispo", [0.0, 0.0], [-1.0, 1.0], [1.0, -1.0], cap=None)
    np.testing.assert_allclose(ours, [-1.28, math.exp(-1)], rtol=1e-9)


@pytest.mark.parametrize("loss", ["clipped", "cispo", "gspo"])
def test_at_ratio_one_every_loss_is_the_plain_policy_gradient(loss: Loss) -> None:
    assert gradient(loss, [-1.0, -2.0], [-1.0, -2.0], [0.5, -2.0], cap=2.0) == [-0.5, 2.0]


def test_clip_higher_lets_a_rising_token_rise_further() -> None:
    ratio = torch.tensor([math.log(1.25)])
    narrow, wide = (
        weights_of("clipped", ratio, torch.ones(1), RatioLimits(0.2, high)).weight_N for high in (0.2, 0.28)
    )
    assert float(narrow) == 0
    assert float(wide) == pytest.approx(1.25)


def test_cap_bounds_what_the_clip_leaves_unbounded() -> None:
    """A < 0 and a ratio of e^3: PPO's gradient is 20 times the plain one."""
    assert gradient("clipped", [0.0], [-3.0], [-1.0], cap=None) == [pytest.approx(math.exp(3))]
    assert gradient("clipped", [0.0], [-3.0], [-1.0], cap=2.0) == [2.0]


def test_clipped_and_truncated_tokens_are_counted() -> None:
    log_ratio_N = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0])
    advantage_N = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    weights = weights_of("clipped", log_ratio_N, advantage_N, RatioLimits(LOW, HIGH, 2.0))
    assert weights.clipped_N.tolist() == [True, False, False, True, False]
    assert weights.truncated_N.tolist() == [True, True, False, False, False]


def test_clipped_share_at_small_drift_is_zero_per_token() -> None:
    """LOOP (arXiv 2502.01600): log-ratio sd 0.01 a token, eps 0.1."""
    log_ratio_N = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.01
    weights = weights_of("clipped", log_ratio_N, torch.ones(100_000), RatioLimits(0.1, 0.1))
    assert not weights.clipped_N.any()


def test_k3_averages_to_the_kl_divergence() -> None:
    """Exactly, over a three-token vocabulary: sum_y pi(y) k3(y) = KL(pi || ref)."""
    pi, ref = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    expected = sum(p * math.log(p / q) for p, q in zip([0.5, 0.3, 0.2], [0.2, 0.2, 0.6], strict=True))
    assert float((pi * k3(pi.log(), ref.log())).sum()) == pytest.approx(expected, rel=1e-5)
    assert (k3(pi.log(), ref.log()) >= 0).all()


def test_mismatch_looks_at_fresh_tokens_first() -> None:
    learner, engine = np.array([-1.0, -2.0, -3.0], np.float32), np.array([-1.5, -2.0, -9.0], np.float32)
    fresh = mismatch(learner, engine, np.array([0, 0, 1]))
    assert (fresh.mean, fresh.max, fresh.at_lag_0) == (0.25, 0.5, True)
    stale = mismatch(learner, engine, np.array([1, 1, 1]))
    assert (stale.max, stale.at_lag_0) == (6.0, False)
