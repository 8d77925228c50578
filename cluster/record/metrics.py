"""One line of metrics.jsonl: pure, from reports to a flat dictionary. Values are never cleaned."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.record.ledger import LedgerCounts
from cluster.record.sampled_counts import JudgedShares
from cluster.record.worker_figures import WorkerFigures, fleet_fields
from contracts.reports import MemoryReport, StepReport


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Seconds of one turn of the learner's loop: waiting for rollouts or memory, then updating, then publishing."""

    step_s: float
    update_s: float
    publish_s: float
    wait_rollouts_s: float
    wait_memory_s: float


@dataclass(frozen=True, slots=True)
class StepContext:
    """What the controller knows about an update beside the reports. late_groups, unremembered_groups: totals so far.
    merged_bfloat16: workers sample with the adapter merged into bfloat16 weights. figures: by worker that reports."""

    step: int
    wall_s: float
    tokens_generated: int
    late_groups: int
    buffered_bytes: int
    workers: int
    dropped_or_failed: dict[str, int]
    unremembered_groups: int = 0
    merged_bfloat16: bool = False
    judged: JudgedShares = field(default_factory=JudgedShares)
    figures: Mapping[str, WorkerFigures] = field(default_factory=dict)


def metrics_line(
    context: StepContext,
    report: StepReport,
    timing: StepTiming,
    memory: MemoryReport | None,
    ledger: LedgerCounts,
) -> dict[str, Any]:
    """Step reports' fields by their own names; `step_s` is the whole turn, `update_s` the learner's share.
    `rollouts_judged`, `reward_errors` (share of them over which the scorer or a reward part failed, by name), `invalid_share`:
    of training rollouts that came back since the line before, which are not the batch's own.
    `sampled_survival`: share of the adapter that is left in the weights that sample; unmerged they have all of it."""
    line: dict[str, Any] = {"step": context.step, "wall_s": context.wall_s}
    fields = dataclasses.asdict(report)
    fields["learner_step_s"] = fields.pop("step_s")
    line |= fields | dataclasses.asdict(timing)
    line["sampled_survival"] = report.merged_survival if context.merged_bfloat16 else 1.0
    line["rollouts_judged"] = context.judged.rollouts
    line["reward_errors"] = dict(context.judged.errors)
    line["invalid_share"] = context.judged.invalid
    line["tokens_generated"] = context.tokens_generated
    line["memory_version"] = memory.memory_version if memory else -1
    line["memory_episodes"] = memory.episodes if memory else 0
    line["memory_queries"] = memory.queries if memory else 0
    line["memory_encode_s"] = memory.encode_s if memory else 0.0
    line["memory_read_s"] = memory.read_s if memory else 0.0
    line["memory_late"] = context.late_groups
    line["memory_unremembered"] = context.unremembered_groups
    line["buffered_bytes"] = context.buffered_bytes
    line["workers"] = context.workers
    line |= fleet_fields(context.figures)
    line["ledger"] = dataclasses.asdict(ledger)
    line["dropped_or_failed"] = context.dropped_or_failed
    return line
