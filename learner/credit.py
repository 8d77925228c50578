"""Turns scored groups into credited groups: which rollouts train, with what reward and advantage.

    ScoredGroup --credit--> CreditedGroup --rows (packing.py)--> micro-batches

Pure. Shape letters: G trainable rollouts of one group.

The bonus joins the reward before normalisation, or, centred among the rollouts that it is paid to, the advantage after it.
It is centred there because an advantage is a comparison: a bonus that all rollouts share must not push them all up.
`BonusRule` says which rollouts it is paid to, and what it becomes where the task gives no signal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.bonus_rule import DEFAULT_RULE, BonusRule, NoSignal, Where
from contracts.rollout import BonusStage, FinishReason, Rollout, RolloutGroup, ScoredGroup
from learner.advantages import nothing_to_compare
from learner.config import LearnerSettings
from learner.methods import advantage_of


@dataclass(frozen=True, slots=True, eq=False)
class CreditedGroup:
    """One group's trainable rollouts with their credit.

    rewards_G: task reward - overlong penalty + bonus, float64 (the bonus counts here at either stage).
    advantages_G: float64. task_advantages_G: float64, what they would be without any bonus.
    bonus_G: float64, as it was paid, 0 where the rule pays none.
    has_task_signal: the task rewards differ. bonus_may_act: memory scored the group, and the rule lets it say something.
    in_loss_G: false where `overlong = "mask"` leaves a cut rollout out of the loss; it
        still counts in the group's mean, because its reward is real.
    """

    group: RolloutGroup
    rollouts: tuple[Rollout, ...]
    rewards_G: NDArray[np.float64]
    advantages_G: NDArray[np.float64]
    task_advantages_G: NDArray[np.float64]
    bonus_G: NDArray[np.float64]
    has_task_signal: bool
    bonus_may_act: bool
    in_loss_G: NDArray[np.bool_]

    @property
    def num_loss_tokens(self) -> int:
        return sum(r.num_policy_tokens for r, counts in zip(self.rollouts, self.in_loss_G, strict=True) if counts)

    @property
    def has_signal(self) -> bool:
        """Some rollout in the loss has an advantage; without it the policy term has no gradient."""
        return bool(np.any(self.advantages_G[self.in_loss_G] != 0))


def credit(scored: ScoredGroup, settings: LearnerSettings, rule: BonusRule = DEFAULT_RULE) -> CreditedGroup:
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
    has_signal = not nothing_to_compare(task_rewards_G)
    paid_G = _paid(rollouts, has_signal, rule)
    bonus_G = np.where(paid_G, scored.bonus_G[chosen].astype(np.float64), 0.0)
    task_advantages_G = advantage_of(settings.advantage)(task_rewards_G)
    terms = _Terms(task_rewards_G, task_advantages_G, bonus_G, paid_G, has_signal)
    return CreditedGroup(
        group=group,
        rollouts=rollouts,
        rewards_G=task_rewards_G + bonus_G,
        advantages_G=_advantages(terms, scored.bonus_stage, settings, rule),
        task_advantages_G=task_advantages_G,
        bonus_G=bonus_G,
        has_task_signal=has_signal,
        bonus_may_act=_may_act(scored, rollouts, paid_G, rule),
        in_loss_G=~cut_G if settings.overlong == "mask" else np.ones(len(rollouts), np.bool_),
    )


def credit_all(
    groups: Sequence[ScoredGroup], settings: LearnerSettings, rule: BonusRule = DEFAULT_RULE
) -> list[CreditedGroup]:
    """Returns `credit` of every group, in order."""
    return [credit(scored, settings, rule) for scored in groups]


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """What an advantage is made of, per trainable rollout."""

    task_rewards_G: NDArray[np.float64]
    task_advantages_G: NDArray[np.float64]
    bonus_G: NDArray[np.float64]
    paid_G: NDArray[np.bool_]
    has_signal: bool


def _advantages(terms: _Terms, stage: BonusStage, settings: LearnerSettings, rule: BonusRule) -> NDArray[np.float64]:
    if nothing_to_compare(terms.bonus_G) and not terms.bonus_G.any():
        return terms.task_advantages_G
    weigh_alone = not terms.has_signal and rule.no_signal is NoSignal.CENTRED
    if stage is BonusStage.BEFORE_NORMALISATION and not weigh_alone:
        return advantage_of(settings.advantage)(terms.task_rewards_G + terms.bonus_G)
    among_G = terms.paid_G if stage is BonusStage.AFTER_NORMALISATION else np.ones_like(terms.paid_G)
    if weigh_alone:
        return rule.no_signal_weight * _centred(terms.bonus_G, among_G)
    worth = min(1.0, _reward_unit(terms)) if rule.keeps_order else 1.0
    return terms.task_advantages_G + worth * _centred(terms.bonus_G, among_G)


def _centred(bonus_G: NDArray[np.float64], among_G: NDArray[np.bool_]) -> NDArray[np.float64]:
    """bonus - mean, of those that compare; exactly 0 where they do not differ."""
    if nothing_to_compare(bonus_G[among_G]):
        return np.zeros_like(bonus_G)
    return np.where(among_G, bonus_G - bonus_G[among_G].mean(), 0.0)


def _reward_unit(terms: _Terms) -> float:
    """Advantage per unit of task reward: every estimator is linear within a group. 1 without a signal."""
    spread = float(np.ptp(terms.task_rewards_G)) if terms.has_signal else 0.0
    return float(np.ptp(terms.task_advantages_G)) / spread if spread > 0 else 1.0


def _paid(rollouts: Sequence[Rollout], has_signal: bool, rule: BonusRule) -> NDArray[np.bool_]:
    correct_G = np.array([rollout.correct for rollout in rollouts], np.bool_)
    match rule.where:
        case Where.EVERYWHERE:
            return np.ones_like(correct_G)
        case Where.NO_TASK_SIGNAL:
            return np.full_like(correct_G, not has_signal)
        case Where.RIGHT_ANSWERS:
            return correct_G
        case Where.WRONG_ANSWERS:
            return ~correct_G


def _may_act(scored: ScoredGroup, rollouts: Sequence[Rollout], paid_G: NDArray[np.bool_], rule: BonusRule) -> bool:
    """At least two rollouts to compare; after normalisation, two that are paid."""
    if scored.memory_version < 0 or scored.late or not rule.is_on(scored.group.policy_version):
        return False
    if not rule.all_correct and all(rollout.correct for rollout in rollouts):
        return False
    needed = 2 if scored.bonus_stage is BonusStage.AFTER_NORMALISATION else 1
    return len(rollouts) >= 2 and int(paid_G.sum()) >= needed


def _check_usable(group: RolloutGroup, rollout: Rollout) -> None:
    if not len(group.prompt_P):
        raise ValueError(f"group {group.group_id} has an empty prompt: nothing predicts the first token")
    if not np.isfinite(rollout.logprobs_T[rollout.policy_mask_T]).all() or not np.isfinite(rollout.task_reward):
        raise ValueError(
            f"rollout {rollout.rollout_id} of group {group.group_id} (worker {group.worker_id}) has a log-prob or "
            "reward that is not finite; its engine or verifier is broken, stop that worker and drop the group"
        )
