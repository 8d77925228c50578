"""Delivery, between scoring and the buffer: a scored group is booked and waits for its update.

Consumes scored groups; produces buffered ones; waits for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_state import RunState
from cluster.record.events.training import MemoryLate
from cluster.record.history import History
from cluster.record.ledger import Ledger
from cluster.record.recorder import Recorder
from contracts.rollout import ScoredGroup


@dataclass(eq=False)
class Delivery:
    """cluster.flow.scoring_queue.Outlet. memory_on: a group without memory's answer is one that did not wait for it."""

    buffer: RolloutBuffer
    ledger: Ledger
    history: History
    recorder: Recorder
    state: RunState
    memory_on: bool

    def answered(self, scored_groups: Sequence[ScoredGroup]) -> None:
        """Logs one call of memory, before any of its groups goes on."""
        self.history.scored(scored_groups)

    def deliver(self, scored: ScoredGroup) -> None:
        """Books a group as buffered and puts it there."""
        self.ledger.buffered(scored.group.lease_id)
        self.buffer.put(scored)
        if scored.memory_version < 0 and self.memory_on:
            self.history.went_on(scored.group.lease_id, late=scored.late)
        if scored.late:
            self.recorder.event(MemoryLate(scored.group.lease_id))
        self.state.changed.notify()
