"""Scoring, the stage between workers and the buffer: calls of memory, one at a time.

Consumes sampled groups of the ScoringQueue; produces scored ones; waits for groups; unblocked by workers. With
max_policy_lag 0 memory is called once per batch, sorted by lease, so that the same seed gives the same run; with more lag
it takes what is there.
"""

from dataclasses import dataclass

from cluster.flow.run_state import RunState
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.uninterruptible import Undivided
from cluster.flow.work_queue import WorkQueue


@dataclass(eq=False)
class ScoringStage:
    """in_lease_order: wait until no training lease is at a worker, then score all of them, sorted."""

    scoring: ScoringQueue
    queue: WorkQueue
    undivided: Undivided
    state: RunState
    in_lease_order: bool

    async def run(self) -> None:
        """Until cancelled. Raises what memory raised."""
        while True:
            if self.scoring.has_new and not (self.in_lease_order and self.queue.training_leases):
                await self.undivided(self.scoring.score_new(in_lease_order=self.in_lease_order))
                self.state.changed.notify()
            else:
                await self.state.changed.wait()
