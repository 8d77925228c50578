"""One update against the papers' objectives, written from their formulas and differentiated by autograd.

The oracle shares nothing with learner/: each rollout goes through the model's own forward alone, ratios, minima, clips and
means are the printed ones, and the gradient is torch's. Engine log-probs are made up, so ratios lie on both sides of every
range. Shape letters: T tokens of one rollout, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.rollout import ScoredGroup
from learner.losses import k3, weighted_k3
from tests.unit.learner import builders
from tests.unit.learner.builders import MAX_NEW_TOKENS, group, random_batch, rollout, scored, with_own_logprobs


@dataclass(frozen=True)
class Read:
    """One rollout as the oracle reads it, its policy tokens alone. ratio_T carries the gradient of now_T."""

    now_T: Tensor
    reference_T: Tensor
    ratio_T: Tensor
    advantage: float

    def __len__(self) -> int:
        return len(self.now_T)


Objective = Callable[[Sequence[Read]], Tensor]


def clipped(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def gspo(low: float, high: float) -> Objective:
    """arXiv 2507.18071, equation 5: mean over rollouts of min(s A, clip(s) A), s = (pi / pi_old)^(1 / |y|)."""

    def loss(reads: Sequence[Read]) -> Tensor:
        parts = [clipped(read.ratio_T.log().mean().exp(), read.advantage, low, high) for read in reads]
        return -torch.stack(parts).sum() / len(parts)

    return loss


def gspo_by_tokens(reads: Sequence[Read]) -> Tensor:
    """What commit be586f9 did: the same, each rollout as many times as it has tokens, with PPO's range."""
    parts = [clipped(read.ratio_T.log().mean().exp(), read.advantage, 0.2, 0.28) * len(read) for read in reads]
    return -torch.stack(parts).sum() / sum(map(len, reads))


def grpo(reads: Sequence[Read]) -> Tensor:
    """arXiv 2402.03300, equation 3 without KL: mean over rollouts of the mean over tokens."""
    return -torch.stack([clipped(read.ratio_T, read.advantage, 0.2, 0.28).mean() for read in reads]).mean()


def dapo(reads: Sequence[Read]) -> Tensor:
    """arXiv 2503.14476, equation 8: one mean over all tokens of the batch."""
    return -torch.cat([clipped(read.ratio_T, read.advantage, 0.2, 0.28) for read in reads]).mean()


def dr_grpo(reads: Sequence[Read]) -> Tensor:
    """arXiv 2503.20783: the sum over tokens by a constant."""
    total = torch.cat([clipped(read.ratio_T, read.advantage, 0.2, 0.28) for read in reads]).sum()
    return -total / (len(reads) * MAX_NEW_TOKENS)


def cispo(high: float) -> Objective:
    """arXiv 2506.13585, equation 4: sg(min(r, 1 + eps_high)) A log pi, over all tokens."""

    def loss(reads: Sequence[Read]) -> Tensor:
        parts = [read.ratio_T.detach().clamp(max=1 + high) * read.advantage * read.now_T for read in reads]
        return -torch.cat(parts).mean()

    return loss


def with_kl(weight: float, *, weighted: bool, cap: float = 1e6) -> Objective:
    """arXiv 2402.03300, equation 4, in the loss; weighted: times the ratio and differentiated through it (2512.02556)."""

    def loss(reads: Sequence[Read]) -> Tensor:
        parts = []
        for read in reads:
            gap_T = read.reference_T - read.now_T
            kl_T = gap_T.exp() - gap_T - 1
            below_T = read.ratio_T.detach() <= cap
            ratio_T = torch.where(below_T, read.ratio_T, cap * (read.now_T - read.now_T.detach()).exp())
            parts.append(kl_T * ratio_T if weighted else kl_T)
        return dapo(reads) + weight * torch.cat(parts).mean()

    return loss


OPEN = {"importance_cap": "off"}
CASES: dict[str, tuple[dict[str, Any], Objective]] = {
    "gspo": ({"loss": "gspo"} | OPEN, gspo(3e-4, 4e-4)),
    "gspo, a range of its own": ({"loss": "gspo", "clip_low": 0.1, "clip_high": 0.05} | OPEN, gspo(0.1, 0.05)),
    "gspo as be586f9 stored it": (
        {"loss": "gspo", "clip_low": 0.2, "clip_high": 0.28, "loss_normalisation": "tokens"} | OPEN,
        gspo_by_tokens,
    ),
    "clipped by rollouts": ({"loss_normalisation": "rollouts"} | OPEN, grpo),
    "clipped by tokens": (OPEN, dapo),
    "clipped by a constant": ({"loss_normalisation": "constant"} | OPEN, dr_grpo),
    "cispo": ({"loss": "cispo"}, cispo(0.28)),
    "cispo, cap 5": ({"loss": "cispo", "clip_high": 4.0}, cispo(4.0)),
    "KL": ({"kl_weight": 0.5} | OPEN, with_kl(0.5, weighted=True)),
    "KL, ratio cut": ({"kl_weight": 0.5, "importance_cap": 3.0}, with_kl(0.5, weighted=True, cap=3.0)),
    "k3 in the loss": ({"kl_weight": 0.5, "kl_estimator": "k3"} | OPEN, with_kl(0.5, weighted=False)),
}


def mixed_batch() -> list[ScoredGroup]:
    """Two groups, rollouts of 1 to 8 tokens with holes; the engine's log-probs are the learner's, moved by up to 1. A third
    group has no signal: it is in every mean, and in the KL term."""
    batch = with_own_logprobs(builders.tiny_policy(), random_batch(5, num_groups=2, size=5))
    random = np.random.default_rng(7)
    moved = []
    for item in batch:
        rollouts = []
        for one in item.group.rollouts:
            logprobs = one.logprobs_T + random.uniform(-1, 1) + random.normal(0, 0.3, len(one.tokens_T))
            mask = one.policy_mask_T.tolist()
            rollouts.append(rollout(one.tokens_T.tolist(), one.task_reward, mask, logprobs.tolist()))
        moved.append(scored(group(rollouts, item.group.prompt_P.tolist())))
    silent = group([rollout([9, 8, 7, 6], 1.0), rollout([5], 1.0), rollout([4, 3], 1.0)], (3, 1))
    return [*moved, *with_own_logprobs(builders.tiny_policy(), [scored(silent)])]


def oracle(objective: Objective, batch: Sequence[ScoredGroup]) -> dict[str, Tensor]:
    policy = builders.tiny_policy()
    reads = []
    for item in batch:
        rewards = np.array([one.task_reward for one in item.group.rollouts])
        advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
        for one, advantage in zip(item.group.rollouts, advantages, strict=True):
            ids = torch.from_numpy(np.concatenate([item.group.prompt_P, one.tokens_T]).astype(np.int64))[None]
            mask = torch.from_numpy(one.policy_mask_T)

            def logprobs(ids: Tensor = ids, mask: Tensor = mask) -> Tensor:
                logits_TV = policy._model(input_ids=ids, use_cache=False).logits[0, -len(mask) - 1 : -1]
                return torch.log_softmax(logits_TV, -1).gather(1, ids[0, -len(mask) :, None])[mask, 0]

            with torch.no_grad(), policy.reference():
                reference_T = logprobs()
            now_T = logprobs()
            ratio_T = (now_T - torch.from_numpy(one.logprobs_T)[mask]).exp()
            reads.append(Read(now_T, reference_T, ratio_T, float(advantage)))
    objective(reads).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in policy.adapter_parameters.items() if p.grad is not None}


@pytest.mark.parametrize("budget", [10_000, 40])
@pytest.mark.parametrize("name", CASES)
def test_one_updates_gradient_is_that_of_the_printed_objective(name: str, budget: int) -> None:
    changes, objective = CASES[name]
    batch = mixed_batch()
    learner = builders.tiny_learner(max_grad_norm=1e9, micro_batch_tokens=budget, **changes)
    learner.step(batch)
    expected = oracle(objective, batch)
    ours = dict(learner.masters.gradients())
    assert ours.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for parameter, gradient in expected.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-3, atol=1e-5 * largest)


def test_the_range_of_gspo_acts_and_ppos_does_not() -> None:
    """Tokens moved by .05 each, to either side: rollouts of many tokens hardly move."""
    random = np.random.default_rng(3)
    batch = with_own_logprobs(builders.tiny_policy(), random_batch(2, num_groups=4, size=8))
    moved = []
    for item in batch:
        rollouts = [
            rollout(
                one.tokens_T.tolist(),
                one.task_reward,
                one.policy_mask_T.tolist(),
                (one.logprobs_T + random.normal(0, 0.05, len(one.tokens_T))).tolist(),
            )
            for one in item.group.rollouts
        ]
        moved.append(scored(group(rollouts, item.group.prompt_P.tolist())))
    own = builders.tiny_learner(loss="gspo").step(moved).clip_share
    ppos = builders.tiny_learner(loss="gspo", clip_low=0.2, clip_high=0.28).step(moved).clip_share
    assert 0.2 < own < 0.8
    assert ppos == 0


def softmax_gradient(value: Callable[[Tensor], Tensor], logits_V: Tensor) -> Tensor:
    at_V = logits_V.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(torch.log_softmax(at_V, 0)), at_V)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_kl_terms_expected_gradient_is_that_of_kl_policy_reference(seed: int) -> None:
    """By enumeration of the vocabulary, on samples of another policy: nothing is estimated."""
    generator = torch.Generator().manual_seed(seed)
    now_V, reference_V, old_V = torch.log_softmax(torch.randn(3, 9, generator=generator, dtype=torch.float64), 1)

    def expected(log_pi_V: Tensor) -> Tensor:
        return torch.sum(old_V.exp() * weighted_k3(log_pi_V, reference_V, log_pi_V.detach() - old_V, None))

    def forward(log_pi_V: Tensor) -> Tensor:
        return torch.sum(log_pi_V.exp() * (log_pi_V - reference_V))

    def reverse(log_pi_V: Tensor) -> Tensor:
        return torch.sum(reference_V.exp() * (reference_V - log_pi_V))

    torch.testing.assert_close(softmax_gradient(expected, now_V), softmax_gradient(forward, now_V))
    torch.testing.assert_close(expected(now_V), forward(now_V))

    def printed(log_pi_V: Tensor) -> Tensor:
        return torch.sum(now_V.exp() * k3(log_pi_V, reference_V))

    torch.testing.assert_close(softmax_gradient(printed, now_V), softmax_gradient(reverse, now_V))
    away = softmax_gradient(printed, now_V) - softmax_gradient(forward, now_V)
    assert away.norm() > 0.1 * softmax_gradient(forward, now_V).norm()
