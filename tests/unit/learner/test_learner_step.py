"""One update: what it refuses, what it changes, what it reports."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.errors import BadNumbersError, LearnerError, StaleGroupError
from contracts.rollout import FinishReason, ScoredGroup
from learner.config import LearnerSettings
from learner.credit import CreditedGroup, credit
from learner.learner import Learner
from learner.master_weights import MasterWeights
from learner.packing import pack, rows_of
from learner.scripted_learner import ScriptedLearner
from tests.unit.learner import builders
from tests.unit.learner.builders import group, random_batch, rollout, scored, tiny_learner, with_own_logprobs


def gradients(learner: Learner) -> dict[str, Tensor]:
    """What the last step summed up, before clipping if max_grad_norm is large."""
    return {name: g.clone() for name, g in learner.masters.gradients()}


def trained_gradients(batch: list[ScoredGroup], **changes: Any) -> dict[str, Tensor]:
    learner = tiny_learner(**({"max_grad_norm": 1e9} | changes))
    learner.step(batch)
    return gradients(learner)


def test_stale_group_is_refused_and_says_what_to_change() -> None:
    learner = tiny_learner(max_policy_lag=1)
    learner.step(random_batch())
    learner.step(random_batch(version=1))
    with pytest.raises(StaleGroupError) as error:
        learner.step(random_batch(version=0))
    assert str(error.value) == (
        "learner at v2 got group 17/0 sampled by v0: lag 2, limit 1. "
        "Raise learner.max_policy_lag or lower cluster.groups_per_batch."
    )
    assert learner.policy_version == 2


def test_group_from_the_future_and_empty_batch_are_refused() -> None:
    learner = tiny_learner()
    with pytest.raises(ValueError, match="not published"):
        learner.step(random_batch(version=1))
    with pytest.raises(ValueError, match="at least one group"):
        learner.step([])


def test_on_policy_step_is_the_plain_policy_gradient() -> None:
    """Lag 0, equal log-probs: the gradient is that of - sum A log pi / tokens, by plain autograd."""
    policy = builders.tiny_policy()
    batch = with_own_logprobs(policy, random_batch())
    learner = tiny_learner(max_grad_norm=1e9)
    total = 0
    loss = torch.zeros(())
    for item in batch:
        credited = learner_credit(item)
        total += credited.num_loss_tokens
        for row in rows_of(credited, 0):
            ids = torch.tensor(np.concatenate([row.prompt_P, row.tokens_T])[None].astype(np.int64))
            logits = policy._causal(input_ids=ids[:, :-1]).logits[0, len(row.prompt_P) - 1 :]
            logprobs = torch.log_softmax(logits, -1).gather(1, ids[0, len(row.prompt_P) :, None])[:, 0]
            loss = loss - row.advantage * logprobs[torch.from_numpy(row.policy_mask_T)].sum()
    (loss / total).backward()  # type: ignore[no-untyped-call]
    report = learner.step(batch)
    for name, gradient in gradients(learner).items():
        expected = policy.adapter_parameters[name].grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    assert report.mismatch_max < 1e-5
    assert report.clip_share == 0


def learner_credit(item: ScoredGroup) -> CreditedGroup:
    return credit(item, builders.settings())


@pytest.mark.parametrize("loss", ["clipped", "cispo", "gspo"])
def test_gradient_does_not_depend_on_the_number_of_micro_batches(loss: str) -> None:
    batch = random_batch(5, num_groups=4)
    whole = trained_gradients(batch, micro_batch_tokens=100_000, loss=loss)
    split = trained_gradients(batch, micro_batch_tokens=1, loss=loss)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-5, rtol=1e-5)


def test_padded_forward_gives_the_same_update() -> None:
    batch = random_batch(6)
    packed, padded = (trained_gradients(batch, shared_prefix=share) for share in (True, False))
    for name, gradient in packed.items():
        torch.testing.assert_close(padded[name], gradient, atol=1e-5, rtol=1e-4)


def test_groups_without_variance_are_not_run_but_count() -> None:
    """The normaliser holds their tokens, so half the batch without signal halves the gradient."""
    signal = scored(group([rollout([4, 5], 1.0), rollout([6, 7], 0.0)]))
    silent = scored(group([rollout([8, 9], 1.0), rollout([10, 11], 1.0)]))
    alone, both = trained_gradients([signal]), trained_gradients([signal, silent])
    for name, gradient in alone.items():
        torch.testing.assert_close(both[name], gradient / 2, atol=1e-7, rtol=1e-4)
    learner = tiny_learner()
    assert len(learner._pack([learner_credit(signal), learner_credit(silent)])[0].rows) == 2
    report = learner.step([signal, silent])
    assert (report.zero_variance_share, report.tokens_trained, report.num_rollouts) == (0.5, 8, 4)


def test_batch_without_any_signal_changes_nothing_but_the_version() -> None:
    learner = tiny_learner()
    learner.step(random_batch())
    before = learner.publish().weights
    silent = scored(group([rollout([8, 9], 1.0), rollout([10, 11], 1.0)]))
    report = learner.step([silent])
    assert (report.grad_norm, report.adapter_delta_norm, learner.policy_version) == (0.0, 0.0, 2)
    assert learner.publish().weights == before


def test_constant_normaliser_is_rollouts_times_limit() -> None:
    batch = [scored(group([rollout([4, 5], 1.0), rollout([6, 7, 8, 9], 0.0)]))]
    tokens = trained_gradients(batch, loss_normalisation="tokens")
    constant = trained_gradients(batch, loss_normalisation="constant")
    for name, gradient in tokens.items():
        torch.testing.assert_close(constant[name] * 2 * builders.MAX_NEW_TOKENS, gradient * 6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_learner, lambda: ScriptedLearner(LearnerSettings(max_policy_lag=0))])
def test_replies_of_an_environment_are_no_tokens_of_an_answer(make: Callable[[], Learner | ScriptedLearner]) -> None:
    """Two turns: two tokens of the policy, three of the reply, one of the policy."""
    played = replace(rollout([4, 5, 6, 7, 8, 9], 1.0), policy_mask_T=np.array([1, 1, 0, 0, 0, 1], np.bool_))
    assert make().step([scored(group([played, rollout([4], 0.0)]))]).completion_tokens_mean == 2.0


def test_report_of_a_countable_batch() -> None:
    rollouts = [
        rollout([4, 5], 1.0),
        rollout([6, 7, 8, 9], 0.0, finish=FinishReason.LENGTH),
        rollout([6], 1.0, finish=FinishReason.ABORT),
    ]
    learner = tiny_learner(num_updates=10, schedule="linear")
    learner.step(random_batch())
    report = learner.step([scored(group(rollouts), bonus=[0.0, 0.5, 9.0])])
    assert (report.policy_version, report.num_groups, report.num_rollouts, report.tokens_trained) == (2, 1, 2, 6)
    assert (report.task_reward, report.task_reward_std, report.accuracy) == (0.5, 0.5, 0.5)
    assert (report.bonus, report.reward) == (0.25, 0.75)
    assert report.reward_parts == {"correctness": 0.5}
    assert (report.lag_mean, report.lag_max) == (1.0, 1)
    assert (report.completion_tokens_mean, report.truncated_share) == (3.0, 0.5)
    assert report.learning_rate == pytest.approx(0.9e-2)
    assert report.grad_norm > 0
    assert report.adapter_delta_norm > 0
    assert 0 < report.entropy <= math.log(builders.VOCABULARY)
    assert report.kl == 0.0
    assert report.peak_rss_bytes > 0
    assert report.advantage_abs_mean == pytest.approx(0.25 / (math.sqrt(0.125) + 1e-4), rel=1e-6)


def test_first_update_moves_the_untrained_adapter() -> None:
    """B = 0 at the start: only B has a gradient, and that is enough."""
    report = tiny_learner(warm=False).step(random_batch())
    assert report.adapter_delta_norm > 0


def test_learning_rate_zero_is_no_error_and_no_change() -> None:
    learner = tiny_learner(learning_rate=0.0)
    before = learner.publish().weights
    assert learner.step(random_batch()).adapter_delta_norm == 0
    assert learner.publish().weights == before


def test_gradient_norm_is_reported_whole_and_applied_clipped() -> None:
    learner = tiny_learner(max_grad_norm=0.01)
    report = learner.step(random_batch())
    clipped = math.sqrt(sum(float((g**2).sum()) for g in gradients(learner).values()))
    assert report.grad_norm > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-4)


def test_zero_gradient_while_rewards_vary_is_an_error() -> None:
    learner = tiny_learner(warm=False)
    with torch.no_grad():
        for parameter in learner._policy.adapter_parameters.values():
            parameter.zero_()
    with pytest.raises(LearnerError, match="rewards vary but the gradient is exactly 0"):
        learner.step(random_batch())
    assert learner.policy_version == 0


def test_every_token_clipped_is_no_error() -> None:
    """Zero gradient is then what the loss says, not a fault."""
    far = scored(group([rollout([4], 1.0, logprobs=[-30.0]), rollout([5], 0.0, logprobs=[0.0])]))
    report = tiny_learner().step([far])
    assert (report.clip_share, report.grad_norm) == (1.0, 0.0)


def test_non_finite_gradient_names_the_tensor_and_changes_nothing() -> None:
    learner = tiny_learner()
    before = learner.publish().weights
    name = next(iter(learner._policy.adapter_parameters))
    handle = learner._policy.adapter_parameters[name].register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: gradient * math.nan
    )
    report = learner.step(random_batch())
    assert report.skipped.startswith(f"the gradient of {name} is not finite")
    assert (learner.publish().weights, learner.policy_version) == (before, 1), "a skipped update takes its number"
    handle.remove()
    assert learner.step(random_batch()).skipped == ""
    assert learner.publish().weights != before


def test_non_finite_loss_names_the_term_and_changes_nothing() -> None:
    learner = tiny_learner(importance_cap="off")
    before = learner.publish().weights
    broken = scored(group([rollout([4], 0.0, logprobs=[-1e30]), rollout([5], 1.0)]))
    assert "first bad term is the weight" in learner.step([broken]).skipped
    assert learner.publish().weights == before


def test_an_update_that_would_throw_the_adapter_far_is_skipped_with_its_moments() -> None:
    learner, twin = tiny_learner(), tiny_learner()
    learner.step(random_batch(seed=1))
    twin.step(random_batch(seed=1))
    masters = learner.masters
    with pytest.raises(BadNumbersError, match=r"limit .* = 0.5 x its norm"):
        masters.update(10.0, 1.0, 1.0, max_relative_change=0.5)
    for name, tensor in twin.masters.state().items():
        torch.testing.assert_close(masters.state()[name], tensor, rtol=0, atol=0)


def test_weights_that_become_no_numbers_are_put_back_with_their_moments() -> None:
    """Every comparison with them is false: `change > limit` would let them pass."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    masters = MasterWeights({"w": parameter}, LearnerSettings())
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    masters.update(0.1, 1.0, 1.0)
    before, in_the_model = {name: tensor.clone() for name, tensor in masters.state().items()}, parameter.clone()
    with pytest.raises(
        BadNumbersError, match=r"would change the adapter by nan .*, most in w; the weights are unchanged"
    ):
        masters.update(math.nan, 1.0, 1.0, max_relative_change=0.5)
    assert before.keys() == masters.state().keys() == {"weight/w", "exp_avg/w", "exp_avg_sq/w", "step/w"}
    assert all(torch.equal(masters.state()[name], tensor) for name, tensor in before.items())
    assert torch.equal(parameter, in_the_model)


def test_rolling_back_restores_weights_and_keeps_the_version(tmp_path: Path) -> None:
    learner = tiny_learner()
    learner.step(random_batch(seed=1))
    learner.save(tmp_path / "early")
    early = learner.publish().weights
    learner.step(random_batch(seed=2))
    assert learner.publish().weights != early
    learner.roll_back(tmp_path / "early")
    assert (learner.publish().weights, learner.policy_version) == (early, 2)


def test_engine_of_another_model_is_refused_before_the_update() -> None:
    learner = tiny_learner(mismatch_stop=0.5)
    before = learner.publish().weights
    with pytest.raises(LearnerError, match=r"learner and engine disagree.*limit 0.5"):
        learner.step(with_own_logprobs(builders.policy_of(learner), random_batch(), shift=0.7))
    assert learner.publish().weights == before


def test_mismatch_is_measured_before_the_update() -> None:
    learner = tiny_learner()
    report = learner.step(with_own_logprobs(builders.policy_of(learner), random_batch(), shift=0.25))
    measured = [report.mismatch_mean, report.mismatch_p99, report.mismatch_max]
    np.testing.assert_allclose(measured, [0.25] * 3, atol=1e-5)


def test_temperature_divides_the_logits() -> None:
    policy = builders.tiny_policy()
    hot = [scored(group(item.group.rollouts, temperature=2.0)) for item in random_batch()]
    learner = tiny_learner()
    assert learner.step(with_own_logprobs(policy, hot)).mismatch_max < 1e-5
    cold = [scored(group(item.group.rollouts)) for item in with_own_logprobs(policy, hot)]
    assert tiny_learner().step(cold).mismatch_max > 1e-3


def test_several_turns_train_only_what_the_policy_wrote() -> None:
    """The environment's tokens may say anything about log-probs; nothing after the last policy token is read."""
    mask = [True, False, False, True, False]
    turns = [rollout([4, 50, 51, 5, 52], 1.0, mask), rollout([6, 50, 51, 7, 53], 0.0, mask)]
    cut = [rollout([4, 50, 51, 5], 1.0, mask[:4]), rollout([6, 50, 51, 7], 0.0, mask[:4])]
    whole, shorter = trained_gradients([scored(group(turns))]), trained_gradients([scored(group(cut))])
    for name, gradient in whole.items():
        assert torch.equal(shorter[name], gradient)
    report = tiny_learner().step([scored(group(turns))])
    assert report.tokens_trained == 4


def test_micro_batches_are_packed_by_the_setting() -> None:
    credited = [learner_credit(item) for item in random_batch()]
    rows = [rows_of(item, 0) for item in credited]
    learner = tiny_learner(micro_batch_tokens=12)
    assert len(learner._pack(credited)) == len(pack(rows, 12, share_prompts=True)) > 1
