"""What an update leaves in metrics.jsonl, in the transcripts and, where it says something, in the events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.config.run_config import RunConfig
from cluster.flow.fleet import Fleet
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_state import RunState
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.worker_reports import WorkerReports
from cluster.record.events.training import Mismatch, UpdateLost
from cluster.record.ledger import Ledger
from cluster.record.metrics import StepContext, StepTiming, metrics_line
from cluster.record.recorder import Recorder
from cluster.record.sampled_counts import SampledCounts
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup

SURVIVES = 0.99
"""Share of the adapter in merged weights below which what samples is not the policy that is trained."""


@dataclass(eq=False)
class StepRecord:
    """Gathers what the stages know about an update. clock: seconds, monotonic."""

    config: RunConfig
    recorder: Recorder
    ledger: Ledger
    scoring: ScoringQueue
    buffer: RolloutBuffer
    fleet: Fleet
    reports: WorkerReports
    state: RunState
    clock: Callable[[], float]
    _started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock()

    def write(
        self, batch: Sequence[ScoredGroup], report: StepReport, timing: StepTiming, counts: SampledCounts
    ) -> None:
        """The line of the update that was booked last, its transcripts, its warnings. counts: of training rollouts that
        came back since the line before."""
        line = metrics_line(self._context(counts), report, timing, self.scoring.report, self.ledger.counts())
        self.recorder.metrics(line)
        self.recorder.groups(self.state.step, batch)
        self._warn(report)

    def _context(self, counts: SampledCounts) -> StepContext:
        return StepContext(
            step=self.state.step,
            wall_s=self.clock() - self._started_s,
            tokens_generated=counts.tokens,
            late_groups=self.scoring.late_groups,
            buffered_bytes=self.buffer.state.nbytes,
            workers=self.fleet.serving,
            dropped_or_failed=dict(self.ledger.reasons),
            unremembered_groups=self.scoring.unremembered_groups,
            merged_bfloat16=self.config.actors.merges_in_bfloat16,
            judged=counts.shares(),
            figures=self.reports.take(),
        )

    def _warn(self, report: StepReport) -> None:
        step = self.state.step
        if report.lag_max == 0 and report.mismatch_mean > self.config.learner.mismatch_warn:
            self.recorder.event(Mismatch(step, report.mismatch_mean, report.mismatch_p99))
        if self.config.actors.merges_in_bfloat16 and report.merged_survival < SURVIVES:
            self.recorder.event(UpdateLost(step, report.policy_version, report.merged_survival))
