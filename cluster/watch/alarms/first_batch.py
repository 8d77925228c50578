"""What the first batch says before anything is learned from it: numbers for `alarms.preflight`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.rollout import FinishReason, ScoredGroup
from contracts.verdict import Invalid


@dataclass(frozen=True, slots=True)
class Shares:
    """Of rollouts, of rollouts, of groups."""

    truncated: float
    invalid: float
    zero_variance: float


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
