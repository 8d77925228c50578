"""Batches, the stage between the buffer and the learner.

Consumes buffered groups; produces batches for an update, oldest first within the lag bound; waits for groups;
unblocked by delivery. A batch leaves the buffer when it is booked, never before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.flow.admission import Admission
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_health import Health
from cluster.flow.run_state import RunState
from cluster.flow.staleness import Staleness
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.ledger import Ledger
from cluster.record.recorder import Recorder
from contracts.rollout import ScoredGroup


@dataclass(frozen=True, slots=True)
class Wait:
    """Where the learner's waiting time went, in seconds."""

    rollouts_s: float = 0.0
    memory_s: float = 0.0


@dataclass(eq=False)
class Batches:
    """clock: seconds, monotonic."""

    buffer: RolloutBuffer
    ledger: Ledger
    registry: AdapterRegistry
    staleness: Staleness
    admission: Admission
    health: Health
    recorder: Recorder
    state: RunState
    clock: Callable[[], float]

    async def next(self) -> tuple[list[ScoredGroup], Wait]:
        """The batch and what it cost to wait for it; empty only when the run is stopping. Raises RunStopped for a halt."""
        started = self.clock()
        sampled: float | None = None  # when the workers had done their part and memory alone was missing
        while not self.state.stopping:
            self.health.check()
            self._drop_stale()
            batch = self.buffer.take(self.registry.newest, self.staleness.versions_under_way())
            if batch is not None:
                now = self.clock()
                memory_s = now - sampled if sampled is not None else 0.0
                return batch, Wait(now - started - memory_s, memory_s)
            if sampled is None and self.staleness.memory_alone_is_missing():
                sampled = self.clock()
            await self.state.changed.wait()
        return [], Wait()

    def book(self, batch: Sequence[ScoredGroup], policy_version: int) -> None:
        """The batch is trained and leaves the buffer; its slots are free."""
        for scored in batch:
            self.ledger.trained(scored.group.lease_id, policy_version)
        self.buffer.trained()
        in_flight = self.admission.queue.training_leases + len(self.staleness.scoring)
        self.ledger.check(in_flight=in_flight, buffered=len(self.buffer))

    def _drop_stale(self) -> None:
        """What grew too old while it waited: counted, and its slots go to other problems."""
        stale = self.buffer.drop_stale(self.registry.newest)
        for scored in stale:
            self.ledger.dropped(scored.group.lease_id, "too stale to train")
        if stale:
            self.recorder.groups(self.state.step, stale, fate="dropped")
            self.admission.admit()
