"""Scored groups to credited groups: which rollouts train, with what reward and advantage.

    ScoredGroup --credit--> CreditedGroup --rows (packing.py)--> micro-batches

Pure. Shape letters: G trainable rollouts of one group.

The bonus joins the reward before normalisation, or, centred within the group, the advantage after it. It is
centred there because an advantage is a comparison: a bonus that all rollouts share must not push them all up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.rollout import BonusStage, FinishReason, Rollout, RolloutGroup, ScoredGroup
from learner.advantages import ESTIMATORS, nothing_to_compare
from learner.config import LearnerSettings


@dataclass(frozen=True, slots=True, eq=False)
class CreditedGroup:
    """One group's trainable rollouts with their credit.

    rewards_G: task reward - overlong penalty + bonus, float64 (the bonus counts here at either stage).
    advantages_G: float64. in_loss_G: false where `overlong = "mask"` leaves a cut rollout out of the loss; it
        still counts in the group's mean, because its reward is real.
    """

    group: RolloutGroup
    rollouts: tuple[Rollout, ...]
    rewards_G: NDArray[np.float64]
    advantages_G: NDArray[np.float64]
    in_loss_G: NDArray[np.bool_]

    @property
    def num_loss_tokens(self) -> int:
        return sum(r.num_policy_tokens for r, counts in zip(self.rollouts, self.in_loss_G, strict=True) if counts)

    @property
    def has_signal(self) -> bool:
        """Some rollout in the loss has an advantage; without it the policy term has no gradient."""
        return bool(np.any(self.advantages_G[self.in_loss_G] != 0))


def credit(scored: ScoredGroup, settings: LearnerSettings) -> CreditedGroup:
    """Raises ValueError for a non-finite engine log-prob or reward: neither may reach the loss."""
    group = scored.group
    chosen = [i for i, rollout in enumerate(group.rollouts) if rollout.trainable]
    rollouts = tuple(group.rollouts[i] for i in chosen)
    for rollout in rollouts:
        _check_usable(group, rollout)
    cut_G = np.array([r.finish_reason is FinishReason.LENGTH for r in rollouts], np.bool_)
    task_rewards_G = np.array([r.task_reward for r in rollouts], np.float64)
    if settings.overlong == "penalty":
        task_rewards_G = task_rewards_G - settings.overlong_penalty * cut_G
    bonus_G = scored.bonus_G[chosen].astype(np.float64)
    return CreditedGroup(
        group=group,
        rollouts=rollouts,
        rewards_G=task_rewards_G + bonus_G,
        advantages_G=_advantages(task_rewards_G, bonus_G, scored.bonus_stage, settings),
        in_loss_G=~cut_G if settings.overlong == "mask" else np.ones(len(rollouts), np.bool_),
    )


def credit_all(groups: Sequence[ScoredGroup], settings: LearnerSettings) -> list[CreditedGroup]:
    return [credit(scored, settings) for scored in groups]


def _advantages(
    task_rewards_G: NDArray[np.float64], bonus_G: NDArray[np.float64], stage: BonusStage, settings: LearnerSettings
) -> NDArray[np.float64]:
    estimate = ESTIMATORS[settings.advantage]
    if stage is BonusStage.BEFORE_NORMALISATION:
        return estimate(task_rewards_G + bonus_G)
    advantages_G = estimate(task_rewards_G)
    if nothing_to_compare(bonus_G):
        return advantages_G
    centred_G: NDArray[np.float64] = bonus_G - bonus_G.mean()
    return advantages_G + centred_G


def _check_usable(group: RolloutGroup, rollout: Rollout) -> None:
    if not len(group.prompt_P):
        raise ValueError(f"group {group.group_id} has an empty prompt: nothing predicts the first token")
    if not np.isfinite(rollout.logprobs_T[rollout.policy_mask_T]).all() or not np.isfinite(rollout.task_reward):
        raise ValueError(
            f"rollout {rollout.rollout_id} of group {group.group_id} (worker {group.worker_id}) has a log-prob or "
            "reward that is not finite; its engine or verifier is broken, stop that worker and drop the group"
        )
