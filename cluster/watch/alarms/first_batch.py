"""What the first batch says before anything is learned from it: numbers for `alarms.preflight`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.rollout import FinishReason, ScoredGroup
from contracts.verdict import Invalid

MIN_GROUPS = 4
"""Rollouts of a group share their problem, so it is problems that are drawn: where half of them are well, a first batch of
two holds none of these one time in four, one of four one time in sixteen. Fewer give a note; the windows of the other alarms
look at them with the updates that follow."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of rollouts, of rollouts, of groups."""

    truncated: float
    invalid: float
    zero_variance: float


def too_few(groups: int, dropped_rollouts: int, rollouts_per_group: int) -> bool:
    """Whether so many groups are too few to conclude from; dropped ones were looked at too."""
    return groups + dropped_rollouts // rollouts_per_group < MIN_GROUPS


def shares_of(groups: Sequence[ScoredGroup], dropped_rollouts: int = 0) -> Shares:
    """dropped_rollouts: of groups that never came this far because hardly a rollout was usable; they count as invalid."""
    rollouts = [rollout for scored in groups for rollout in scored.group.rollouts]
    invalid = sum(isinstance(rollout.verdict, Invalid) for rollout in rollouts) + dropped_rollouts
    flat = [len({rollout.task_reward for rollout in scored.group.trainable_rollouts}) < 2 for scored in groups]
    return Shares(
        truncated=sum(r.finish_reason is FinishReason.LENGTH for r in rollouts) / max(1, len(rollouts)),
        invalid=invalid / max(1, len(rollouts) + dropped_rollouts),
        zero_variance=sum(flat) / max(1, len(flat)),
    )
