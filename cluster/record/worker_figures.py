"""What rollout workers did between two of their reports: pure, from counters to rates.

A counter that is lower than before was begun anew: its worker restarted, and there is no rate until its next report. What
there is nothing to measure over is None, and left out of metrics.jsonl and status.json.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.reports import WorkerReport


@dataclass(frozen=True, slots=True)
class Sample:
    """A report, and when it came, in seconds of the controller's monotonic clock."""

    at_s: float
    report: WorkerReport


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """seconds: between the two reports, 0 where there is only one. tokens: that the policy wrote in them. generate_s,
    verify_s: of calls that ended in them, overlapping calls added up. leases_in_hand, leases_to_judge: as of the later report."""

    seconds: float
    tokens: int
    generate_s: float
    verify_s: float
    leases_in_hand: int
    leases_to_judge: int

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.seconds if self.seconds > 0 else None

    @property
    def fields(self) -> dict[str, float]:
        """By the names they have in files."""
        return _fields([self])


def restarted(before: WorkerReport, now: WorkerReport) -> bool:
    """Whether a counter went back."""
    return (
        now.tokens < before.tokens
        or now.groups < before.groups
        or now.generate_s < before.generate_s
        or now.verify_s < before.verify_s
    )


def figures_between(before: Sample, now: Sample) -> WorkerFigures:
    """Of one worker that did not restart in between."""
    return WorkerFigures(
        seconds=now.at_s - before.at_s,
        tokens=now.report.tokens - before.report.tokens,
        generate_s=now.report.generate_s - before.report.generate_s,
        verify_s=now.report.verify_s - before.report.verify_s,
        leases_in_hand=now.report.leases_in_hand,
        leases_to_judge=now.report.leases_to_judge,
    )


def fleet_fields(by_worker: Mapping[str, WorkerFigures]) -> dict[str, Any]:
    """For metrics.jsonl: of all workers that report, and `by_worker` of each; empty where none does.

    tokens_per_s: sum over workers. verify_share: of the seconds in which they sampled or judged, those in which they judged.
    """
    if not by_worker:
        return {}
    return {**_fields(by_worker.values()), "by_worker": {name: found.fields for name, found in by_worker.items()}}


def work_text(fields: Mapping[str, Any]) -> str:
    """What `fields` come to, for people: of one worker or of all, from status.json; empty where nobody reports."""
    if "leases_in_hand" not in fields:
        return ""
    told = [f"{fields['tokens_per_s']:,.0f} tokens/s"] if "tokens_per_s" in fields else []
    told += [f"{fields['verify_share']:.0%} of the time judging"] if "verify_share" in fields else []
    return ", ".join([*told, f"{fields['leases_in_hand']} leases in hand, {fields['leases_to_judge']} to judge"])


def _fields(workers: Iterable[WorkerFigures]) -> dict[str, float]:
    found = list(workers)
    rates = [worker.tokens_per_s for worker in found if worker.tokens_per_s is not None]
    verify_s = sum(worker.verify_s for worker in found)
    busy_s = verify_s + sum(worker.generate_s for worker in found)
    fields: dict[str, float] = {"tokens_per_s": sum(rates)} if rates else {}
    if busy_s > 0:
        fields["verify_share"] = verify_s / busy_s
    fields["leases_in_hand"] = sum(worker.leases_in_hand for worker in found)
    fields["leases_to_judge"] = sum(worker.leases_to_judge for worker in found)
    return fields
