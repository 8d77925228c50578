"""What memory's bonus did to one batch's advantages. Pure.

A bonus that all rollouts of a group share has a mean and moves nothing, so what is measured is within groups:

    a = advantage without the bonus, d = advantage - a;  the bonus's share of the squared advantage = sum d^2 / (sum d^2 + sum a^2)

0 where it changed nothing, 1 where the task gave nothing, 1/2 where it moves as much as the task does. Sums are over rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.rollout import ScoredGroup
from learner.credit import CreditedGroup

SMALLEST_CHANGE = 1e-6
"""An advantage that moved by less did not move: adding one number to every reward of a group rounds differently."""


@dataclass(frozen=True, slots=True)
class BonusEffect:
    """Fields of StepReport (contracts/reports.py), which says what they are."""

    bonus_groups: int
    bonus_signal_groups: int
    exploit_std: float
    explore_std: float
    bonus_std: float
    bonus_changed_share: float
    bonus_advantage_share: float
    bonus_signal_share: float


def bonus_effect(scored_groups: Sequence[ScoredGroup], credited: Sequence[CreditedGroup]) -> BonusEffect:
    """The two name the same groups in the same order."""
    open_to_it = [(s, c) for s, c in zip(scored_groups, credited, strict=True) if c.bonus_may_act]
    with_signal = [c for _, c in open_to_it if c.has_task_signal]
    return BonusEffect(
        bonus_groups=len(open_to_it),
        bonus_signal_groups=len(with_signal),
        exploit_std=_mean([_spread(_trainable(s, s.exploit_G)) for s, _ in open_to_it]),
        explore_std=_mean([_spread(_trainable(s, s.explore_G)) for s, _ in open_to_it]),
        bonus_std=_mean([_spread(c.bonus_G) for _, c in open_to_it]),
        bonus_changed_share=_mean([float(np.abs(_moved(c)).max() > SMALLEST_CHANGE) for _, c in open_to_it]),
        bonus_advantage_share=_share([c for _, c in open_to_it]),
        bonus_signal_share=_share(with_signal),
    )


def _share(credited: Sequence[CreditedGroup]) -> float:
    moved = sum(float((_moved(group) ** 2).sum()) for group in credited)
    of_task = sum(float((group.task_advantages_G**2).sum()) for group in credited)
    return moved / (moved + of_task) if moved > 0 else 0.0


def _moved(group: CreditedGroup) -> NDArray[np.float64]:
    return group.advantages_G - group.task_advantages_G


def _trainable(scored: ScoredGroup, values_G: NDArray[np.float32]) -> NDArray[np.float32]:
    return values_G[np.array([rollout.trainable for rollout in scored.group.rollouts], np.bool_)]


def _spread(values_G: NDArray[np.floating]) -> float:
    """Exactly 0 for equal values, which a sum of squares is not."""
    return 0.0 if np.all(values_G == values_G[0]) else float(values_G.std(dtype=np.float64))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
