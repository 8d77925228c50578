"""The account of one update. Pure: credited groups, token record and update norms in, StepReport out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.reports import StepReport
from contracts.rollout import FinishReason, Rollout, ScoredGroup
from contracts.verdict import Scored
from learner.bonus_effect import bonus_effect
from learner.credit import CreditedGroup
from learner.update_record import UpdateRecord


@dataclass(frozen=True, slots=True)
class UpdateNorms:
    """grad_norm: before clipping. adapter_delta_norm: L2 of the change. learning_rate: this update's."""

    grad_norm: float
    adapter_delta_norm: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class UpdateCost:
    """Seconds of forward and backward, and of the whole step; peak memory of the process."""

    forward_backward_s: float
    step_s: float
    peak_rss_bytes: int


def make_report(
    groups: Sequence[ScoredGroup],
    credited: Sequence[CreditedGroup],
    record: UpdateRecord,
    norms: UpdateNorms,
    cost: UpdateCost,
    policy_version: int,
    skipped: str = "",
) -> StepReport:
    """policy_version: after the update.

    Rewards, lengths and shares are over trainable rollouts; an update without any reports zeros. Token means (entropy,
    kl, clip share, mismatch) are over the tokens that ran: groups without signal are skipped unless a KL or entropy
    term needs them. kl is 0 where kl_weight is: the reference is not run to report a number.
    """
    rollouts = [rollout for group in credited for rollout in group.rollouts]
    # Each group's lag against the version that was just updated.
    lags = np.array([policy_version - 1 - scored.group.policy_version for scored in groups])
    return StepReport(
        policy_version=policy_version,
        num_groups=len(groups),
        num_rollouts=len(rollouts),
        tokens_trained=sum(group.num_loss_tokens for group in credited),
        lag_mean=float(lags.mean()),
        lag_max=int(lags.max()),
        completion_tokens_mean=_mean([rollout.num_policy_tokens for rollout in rollouts]),
        truncated_share=_mean([rollout.finish_reason is FinishReason.LENGTH for rollout in rollouts]),
        skipped=skipped,
        **_rewards(groups, credited, rollouts),
        **_tokens(record),
        **dataclasses.asdict(norms),
        **dataclasses.asdict(cost),
        **dataclasses.asdict(bonus_effect(groups, credited)),
    )


def _rewards(
    groups: Sequence[ScoredGroup], credited: Sequence[CreditedGroup], rollouts: Sequence[Rollout]
) -> dict[str, Any]:
    """Fields of StepReport about rewards and advantages."""
    task_rewards = np.array([rollout.task_reward for rollout in rollouts])
    advantages = np.concatenate([group.advantages_G for group in credited])
    return {
        "task_reward": _mean(task_rewards),
        "task_reward_std": float(task_rewards.std()) if rollouts else 0.0,
        "accuracy": _mean([rollout.correct for rollout in rollouts]),
        "intrinsic_exploit": _mean(_trainable(groups, "exploit_G")),
        "intrinsic_explore": _mean(_trainable(groups, "explore_G")),
        "bonus": _mean(np.concatenate([group.bonus_G for group in credited])),
        "reward": _mean(np.concatenate([group.rewards_G for group in credited])),
        "reward_parts": _part_means(rollouts),
        "advantage_abs_mean": _mean(np.abs(advantages)),
        "advantage_std": float(advantages.std()) if len(advantages) else 0.0,
        "zero_variance_share": _mean([not np.any(group.advantages_G) for group in credited]),
    }


def _tokens(record: UpdateRecord) -> dict[str, Any]:
    """Fields of StepReport about the tokens that ran."""
    gap = record.mismatch()
    return {
        "loss": record.loss,
        "clip_share": record.mean("clipped"),
        "kl": record.mean("kl"),
        "entropy": record.mean("entropy"),
        "mismatch_mean": gap.mean,
        "mismatch_p99": gap.p99,
        "mismatch_max": gap.max,
        "importance_truncated_share": record.mean("truncated"),
    }


def _mean(values: Sequence[float] | NDArray[np.floating]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _trainable(groups: Sequence[ScoredGroup], name: str) -> NDArray[np.float32]:
    masks = [np.array([rollout.trainable for rollout in scored.group.rollouts], np.bool_) for scored in groups]
    return np.concatenate([getattr(scored, name)[mask] for scored, mask in zip(groups, masks, strict=True)])


def _part_means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """A part that a rollout's verdict does not name counts 0 there."""
    parts = [rollout.verdict.parts for rollout in rollouts if isinstance(rollout.verdict, Scored)]
    return {
        name: _mean([part.get(name, 0.0) for part in parts]) for name in sorted({n for part in parts for n in part})
    }
