"""Every optional term of the loss changes the gradient, in the direction it promises."""

from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.reports import StepReport
from contracts.rollout import FinishReason, ScoredGroup
from tests.unit.learner import builders
from tests.unit.learner.builders import group, random_batch, rollout, scored, tiny_learner, with_own_logprobs

SILENT = scored(group([rollout([4, 5, 6], 1.0), rollout([7, 8], 1.0)]))


def step(batch: list[ScoredGroup], **changes: Any) -> tuple[StepReport, dict[str, Tensor]]:
    learner = tiny_learner(**({"max_grad_norm": 1e9} | changes))
    report = learner.step(batch)
    return report, {name: g.clone() for name, g in learner.masters.gradients()}


def differs(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-7) for name in first)


def test_kl_flows_even_without_any_reward_signal() -> None:
    report, _ = step([SILENT], kl_weight=0.1)
    assert report.kl > 0
    assert report.grad_norm > 0
    assert step([SILENT])[0].grad_norm == 0


def test_kl_of_the_untrained_policy_to_its_base_is_zero() -> None:
    report, _ = step([SILENT], kl_weight=0.1, warm=False)
    assert report.kl == pytest.approx(0.0, abs=1e-6)


def test_kl_pulls_towards_the_base_model() -> None:
    learner = tiny_learner(kl_weight=1.0, learning_rate=1e-3)
    first = learner.step([SILENT]).kl
    for version in range(1, 20):
        last = learner.step([scored(group(SILENT.group.rollouts, version=version))]).kl
    assert last < first / 2


@pytest.mark.parametrize("estimator", ["weighted_k3", "k3"])
def test_kl_gradient_is_the_derivative_of_what_is_reported(estimator: str) -> None:
    """Through the whole learner, by a finite difference of the loss; the engine's log-probs stay where they are."""
    batch = with_own_logprobs(builders.tiny_policy(), [SILENT])
    report, gradient = step(batch, kl_weight=1.0, kl_estimator=estimator)
    assert report.loss == pytest.approx(report.kl, rel=1e-5)
    name = next(n for n in gradient if "lora_B" in n and gradient[n].abs().max() > 1e-4)
    index = divmod(int(gradient[name].abs().argmax()), gradient[name].shape[1])
    losses = []
    for nudge in (1e-2, -1e-2):
        learner = tiny_learner(kl_weight=1.0, kl_estimator=estimator)
        with torch.no_grad():
            learner._policy.adapter_parameters[name][index] += nudge
        losses.append(learner.step(batch).loss)
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(gradient[name][index]), rel=2e-2)


def test_moving_average_that_never_moves_is_a_fixed_reference() -> None:
    """m = 1 with B = 0 at the start: the average stays at version 0, which is the base model."""
    batch = random_batch()
    fixed = tiny_learner(warm=False, kl_weight=0.5)
    average = tiny_learner(warm=False, kl_weight=0.5, kl_reference="moving_average", moving_average_decay=1.0)
    for version in range(3):
        at_version = [scored(group(g.group.rollouts, g.group.prompt_P.tolist(), version)) for g in batch]
        first, second = fixed.step(at_version), average.step(at_version)
        assert second.kl == pytest.approx(first.kl, rel=1e-4, abs=1e-7)
    assert first.kl > 1e-4


def test_moving_average_without_memory_is_the_policy_itself() -> None:
    batch = random_batch()
    learner = tiny_learner(kl_weight=0.5, kl_reference="moving_average", moving_average_decay=0.0)
    for version in range(3):
        at_version = [scored(group(g.group.rollouts, g.group.prompt_P.tolist(), version)) for g in batch]
        assert learner.step(at_version).kl == pytest.approx(0.0, abs=1e-6)


def test_entropy_bonus_flows_and_raises_entropy() -> None:
    assert step([SILENT], entropy_weight=0.1)[0].grad_norm > 0
    learner = tiny_learner(entropy_weight=1.0)
    first = learner.step([SILENT]).entropy
    for version in range(1, 10):
        last = learner.step([scored(group(SILENT.group.rollouts, version=version))]).entropy
    assert last > first


def test_entropy_falls_slower_with_the_bonus_on_a_bandit() -> None:
    def final_entropy(weight: float) -> float:
        learner = tiny_learner(entropy_weight=weight)
        for version in range(8):
            arms = [rollout([arm], float(arm == 5)) for arm in range(3, 9)]
            report = learner.step(
                with_own_logprobs(builders.policy_of(learner), [scored(group(arms, version=version))])
            )
        return report.entropy

    assert final_entropy(0.5) > final_entropy(0.0)


def test_importance_cap_bounds_the_gradient_and_is_counted() -> None:
    """The engine thought these tokens e times less likely; what lowers them is unclipped, so the cap decides."""
    batch = with_own_logprobs(builders.tiny_policy(), random_batch(), shift=1.0)
    capped, open_ended = step(batch, importance_cap=1.5), step(batch, importance_cap="off")
    assert differs(capped[1], open_ended[1])
    assert capped[0].grad_norm < open_ended[0].grad_norm
    assert capped[0].importance_truncated_share == 1.0
    assert open_ended[0].importance_truncated_share == 0.0


def test_clip_higher_keeps_tokens_that_the_lower_bound_silences() -> None:
    batch = with_own_logprobs(builders.tiny_policy(), random_batch(), shift=0.22)
    narrow, wide = step(batch, clip_high=0.2), step(batch, clip_high=0.28)
    assert narrow[0].clip_share > 0
    assert wide[0].clip_share == 0
    assert differs(narrow[1], wide[1])


@pytest.mark.parametrize("loss", ["cispo", "gspo"])
def test_losses_differ_off_policy(loss: str) -> None:
    batch = random_batch(9)
    assert differs(step(batch, loss=loss)[1], step(batch, loss="clipped")[1])


@pytest.mark.parametrize("advantage", ["dr_grpo", "rloo"])
def test_advantages_differ(advantage: str) -> None:
    batch = random_batch(9)
    assert differs(step(batch, advantage=advantage)[1], step(batch, advantage="grpo")[1])


def test_overlong_mask_and_penalty_change_the_gradient() -> None:
    cut = rollout([4, 5, 6, 7], 0.0, finish=FinishReason.LENGTH)
    batch = [scored(group([rollout([4, 5], 1.0), cut, rollout([9], 0.0)]))]
    trained, masked, paid = (step(batch, overlong=how) for how in ("train", "mask", "penalty"))
    assert differs(trained[1], masked[1])
    assert differs(trained[1], paid[1])
    assert [report.tokens_trained for report, _ in (trained, masked, paid)] == [7, 3, 7]
    assert [report.truncated_share for report, _ in (trained, masked, paid)] == [pytest.approx(1 / 3)] * 3


def test_bonus_moves_the_policy_at_either_stage() -> None:
    rollouts = [rollout([4, 5], 0.0), rollout([6, 7], 0.0)]
    before = step([scored(group(rollouts), bonus=[0.3, 0.0])])[0]
    after = step([scored(group(rollouts), bonus=[0.3, 0.0], after=True)])[0]
    assert before.grad_norm > after.grad_norm > 0
    assert after.advantage_abs_mean == pytest.approx(0.15)
    assert step([scored(group(rollouts))])[0].grad_norm == 0


def test_dropout_acts_in_training_and_not_in_proofs() -> None:
    learner = tiny_learner(lora_dropout=0.5)
    item = random_batch()[0]
    tokens_P = item.group.prompt_P.repeat(3)
    first, second = (builders.policy_of(learner).sequence_logprobs(tokens_P) for _ in range(2))
    assert first.tolist() == second.tolist()
    norms = []
    for seed in (1, 2):
        fresh = tiny_learner(lora_dropout=0.5)
        torch.manual_seed(seed)
        norms.append(fresh.step(random_batch()).grad_norm)
    assert norms[0] != norms[1]
