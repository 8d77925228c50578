"""The training loop, the last stage: updates, one after another, and what follows from each.

    next batch -> update -> log -> publish -> book -> metrics -> admit -> checkpoint, when due

Consumes batches; produces versions; waits for batches; unblocked by the scoring stage. What the learner has begun is
finished and booked before a run ends in order (uninterruptible.py), so that every end can be resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.admission import Admission
from cluster.flow.autoscaler import Autoscaler
from cluster.flow.batches import Batches, Wait
from cluster.flow.checkpoints import Checkpoints
from cluster.flow.evaluation_schedule import EvaluationSchedule
from cluster.flow.lease_outcomes import LeaseOutcomes
from cluster.flow.publication import Publication
from cluster.flow.run_health import Health
from cluster.flow.run_state import RunState
from cluster.flow.scaling_policy import Waits
from cluster.flow.step_record import StepRecord
from cluster.flow.uninterruptible import Undivided
from cluster.handles import Services
from cluster.record.history import History
from cluster.record.metrics import StepTiming
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup


@dataclass(eq=False)
class TrainingLoop:
    """clock: seconds, monotonic."""

    config: RunConfig
    services: Services
    batches: Batches
    publication: Publication
    step_record: StepRecord
    checkpoints: Checkpoints
    schedule: EvaluationSchedule
    admission: Admission
    outcomes: LeaseOutcomes
    autoscaler: Autoscaler
    health: Health
    history: History
    undivided: Undivided
    state: RunState
    clock: Callable[[], float]

    async def run(self) -> None:
        """To the last update, or until the run is stopping."""
        while self.state.step < self.config.learner.num_updates and not self.state.stopping:
            await self._learn()
            self.schedule.after_update(self.state.step)

    async def _learn(self) -> None:
        """One update, and what follows from it; a halt that comes of it is raised when it is booked."""
        started = self.clock()
        batch, wait = await self.batches.next()
        if not batch:
            return
        if self.state.step == 0:
            self.health.check_first_batch(batch, self.outcomes.dropped_rollouts)
        report, timing, rolled_back = await self.undivided(self._update(batch, started, wait))
        waits = (timing.step_s, timing.wait_rollouts_s, timing.wait_memory_s)
        self.autoscaler.after_update(Waits(self.state.step, *waits, len(self.batches.buffer), self.config.slots))
        await self.checkpoints.write_if_due(rolled_back=rolled_back)
        if report.skipped:
            self.health.check()

    async def _update(
        self, batch: Sequence[ScoredGroup], started: float, wait: Wait
    ) -> tuple[StepReport, StepTiming, bool]:
        """From the batch to the books, undivided: the run stands at the learner's version again when this returns.
        True where the learner went back to a checkpoint's weights."""
        state = self.state
        state.updating, taken = True, self.clock()
        report, adapter = await self.services.learner.update(batch)
        adapter, rolled_back_to = await self.health.after_update(report, adapter, self.services.learner)
        updated = self.clock()
        leases = [scored.group.lease_id for scored in batch]
        self.history.trained(state.step + 1, leases, adapter.manifest.weights_hash, rolled_back_to)
        await self.publication.publish(adapter)
        state.step += 1
        state.updating = False
        self.batches.book(batch, report.policy_version)
        timing = StepTiming(
            step_s=self.clock() - started,
            update_s=updated - taken,
            publish_s=self.clock() - updated,
            wait_rollouts_s=wait.rollouts_s,
            wait_memory_s=wait.memory_s,
        )
        self.step_record.write(batch, report, timing, self.outcomes.take_counts())
        self.admission.admit()  # at once: whichever worker proves the new version first takes what is there
        return report, timing, bool(rolled_back_to)
