"""What became of leases that went to a worker: groups for memory, another attempt, dropped or failed with a reason.

Dispatcher --groups, errors--> here --> ScoringQueue | WorkQueue (another attempt) | Ledger (dropped, failed) | Evaluator
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.config.cluster import ClusterSettings
from cluster.flow.admission import Admission
from cluster.flow.evaluator import Evaluator
from cluster.flow.failure_streak import FailureStreak
from cluster.flow.quarantine import QUARANTINED
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.work_queue import WorkQueue
from cluster.record.events.training import EvaluationInvalid, EvaluationSkipped
from cluster.record.events.workers import Quarantined, SampledAgain, SamplingFailed
from cluster.record.history import History
from cluster.record.judge_faults import JudgeFaults
from cluster.record.ledger import Ledger
from cluster.record.recorder import Recorder
from cluster.record.sampled_counts import SampledCounts, beyond_the_frames
from contracts.problem import Lease, Purpose
from contracts.rollout import RolloutGroup, ScoredGroup
from contracts.verdict import Invalid

BY_HAND = "`memr eval RUN --policy-version N` does it from the adapter on disk"
MIN_TRAINABLE = 2
"""A group with fewer trainable rollouts has no advantage to offer: its mean is itself."""


@dataclass(eq=False)
class LeaseOutcomes:
    """cluster.flow.dispatcher.Outcomes. Raises RunStopped after a streak of failures.

    returned: groups that came back, evaluations too. dropped_rollouts: of groups that no update may use. counts: of
    training rollouts, since the last line of metrics.
    """

    settings: ClusterSettings
    queue: WorkQueue
    ledger: Ledger
    scoring: ScoringQueue
    evaluator: Evaluator
    recorder: Recorder
    history: History
    admission: Admission
    counts: SampledCounts = field(default_factory=SampledCounts)
    returned: int = 0
    dropped_rollouts: int = 0
    _not_evaluated: set[int] = field(default_factory=set)
    _invalid_in: set[int] = field(default_factory=set)
    """Versions whose evaluation has answers that count as wrong unseen."""
    _streak: FailureStreak = field(init=False)
    _faults: JudgeFaults = field(init=False)

    def __post_init__(self) -> None:
        self._streak = FailureStreak(self.settings.stop_after_failures)
        self._faults = JudgeFaults(self.recorder)

    def take_counts(self) -> SampledCounts:
        """Of training rollouts that came since the last time."""
        counts, self.counts = self.counts, SampledCounts()
        return counts

    def sampled(self, groups: Sequence[RolloutGroup]) -> None:
        """A worker's call came back. What can train is durable before anything else happens to it."""
        kept = [g for g in groups if g.purpose is Purpose.TRAIN and len(g.trainable_rollouts) >= MIN_TRAINABLE]
        if kept:
            self.history.sampled(kept)
        if beyond := beyond_the_frames(groups, kept):
            self.history.counted(beyond)
        self.returned += len(groups)
        self._faults.look_at(groups)
        for group in groups:
            if group.purpose is Purpose.EVAL:
                self.queue.done(group.lease_id)
                self._tell_if_invalid(group)
                self.evaluator.finished(group)
            else:
                self.counts.add(group)
                self._book(group)

    def sampling_failed(self, leases: Sequence[Lease], error: Exception, *, crashed_alone: bool = False) -> None:
        """Back into the queue for another attempt; after the last, the ledger keeps the reason. crashed_alone: the
        worker fell ill or died with this lease and no other in hand."""
        self.recorder.event(SamplingFailed(tuple(lease.lease_id for lease in leases), str(error)))
        for lease in reversed(leases):
            quarantined = crashed_alone and self._strike(lease.problem.problem_id, str(error))
            if lease.attempt + 1 < self.settings.lease_attempts and not quarantined:
                self.queue.returned(lease)
                continue
            self.queue.done(lease.lease_id)
            if lease.purpose is Purpose.EVAL:
                self._counts_as_wrong(lease.policy_version, lease.problem.problem_id, f"every attempt failed: {error}")
                self.evaluator.given_up(lease.lease_id)
            else:
                self.ledger.failed(lease.lease_id, QUARANTINED if quarantined else type(error).__name__)
            self._streak.failed(self.settings.lease_attempts, error)
        self.admission.admit()

    def unservable(self, leases: Sequence[Lease], error: Exception) -> None:
        """No worker serves the version that these evaluation leases ask for: no attempt can help, and no worker failed."""
        self.left_out(leases[0].policy_version, f"{error}; {BY_HAND}")
        for lease in leases:
            self.queue.done(lease.lease_id)
            self.evaluator.unservable(lease.lease_id)

    def left_out(self, policy_version: int, why: str) -> None:
        """An incident, once for a version: its evaluation is missing, and no accuracy stands in for it."""
        if policy_version not in self._not_evaluated:
            self._not_evaluated.add(policy_version)
            self.recorder.event(EvaluationSkipped(why))

    def _tell_if_invalid(self, group: RolloutGroup) -> None:
        reasons = [r.verdict.reason for r in group.rollouts if isinstance(r.verdict, Invalid)]
        if reasons:
            why = f"{len(reasons)} of {len(group.rollouts)} answers could not be judged: {reasons[0]}"
            self._counts_as_wrong(group.policy_version, group.problem_id, why)

    def _counts_as_wrong(self, policy_version: int, problem_id: str, why: str) -> None:
        """Told at the first such problem of an evaluation, while it goes on: an incident, of later ones an event. How many
        there were is `invalid` in eval.jsonl."""
        if policy_version in self._invalid_in:
            return
        text = (
            f"evaluation of version {policy_version}, held-out problem {problem_id}: {why}. What cannot be measured counts "
            "as wrong in the accuracy; `invalid` in eval.jsonl says how often"
        )
        self.recorder.event(EvaluationInvalid(text, policy_version, again=bool(self._invalid_in)))
        self._invalid_in.add(policy_version)

    def _book(self, group: RolloutGroup) -> None:
        if len(group.trainable_rollouts) >= MIN_TRAINABLE:
            self.queue.done(group.lease_id)
            self._streak.good()
            self.scoring.add(group)
        elif any(rollout.finish_reason.worth_another_try for rollout in group.rollouts) and self._try_again(group):
            return
        else:
            self.queue.done(group.lease_id)
            self._drop(group)

    def _try_again(self, group: RolloutGroup) -> bool:
        """The engine spoilt the group: the problem goes back, while it has attempts left."""
        lease = self.queue.lease(group.lease_id)
        if lease.attempt + 1 >= self.settings.lease_attempts:
            return False
        reasons = sorted({rollout.finish_reason.value for rollout in group.rollouts})
        self.recorder.event(SampledAgain(lease.lease_id, group.worker_id, tuple(reasons)))
        self.queue.returned(lease)
        return True

    def _strike(self, problem_id: str, why: str) -> bool:
        """True, with an incident, when the problem goes into quarantine."""
        if not self.admission.quarantine.strike(problem_id):
            return False
        headline = f"problem {problem_id} is not issued again in this run; it did harm twice, last: {why}"
        self.recorder.event(Quarantined(headline))
        return True

    def _drop(self, group: RolloutGroup) -> None:
        self.dropped_rollouts += len(group.rollouts)
        reasons = [r.verdict.reason for r in group.rollouts if isinstance(r.verdict, Invalid)]
        quarantined = bool(reasons) and self._strike(group.problem_id, f"it could not be judged: {reasons[0]}")
        self.ledger.dropped(group.lease_id, QUARANTINED if quarantined else "fewer than two trainable rollouts")
        self.recorder.groups(group.policy_version, [ScoredGroup.without_bonus(group)], fate="dropped")
        self._streak.untrainable(group)
        self.admission.admit()
