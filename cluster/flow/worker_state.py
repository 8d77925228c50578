"""A rollout worker's place in a run: what it holds, what it has in hand, whether it may take more. No I/O.

SERVING <-> UNHEALTHY (a call failed: it must pass its health check)
   |           |
DRAINING     DEAD (lost, or retired for refusing what others have proven)
   +-----------^
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from actors.config import ActorSettings
from cluster.handles import WorkerHandle


class WorkerStatus(StrEnum):
    """Whether a worker gets leases: SERVING does; UNHEALTHY misses its deadline; DRAINING finishes what it has; DEAD is
    gone."""

    SERVING = "serving"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(slots=True, eq=False)
class WorkerState:
    """version: the newest that the worker has proven, -1 before the first. rows: samples in hand. refusal: why it would
    not serve a version, the last time."""

    handle: WorkerHandle
    pool: str
    settings: ActorSettings
    state: WorkerStatus = WorkerStatus.SERVING
    version: int = -1
    refusal: Exception | None = None
    rows: int = 0
    calls: "set[asyncio.Task[None]]" = field(default_factory=set)
    reason: Exception | None = None  # why it is DEAD, where that is a loss

    @property
    def worker_id(self) -> str:
        return self.handle.worker_id

    def capacity(self, newest: int, servable: int, staleness_budget: int, lag_left: int) -> int:
        """Samples it may take now.

        newest: version at the learner. servable: the newest that workers may prove; below `newest` where those after it
        were skipped. staleness_budget: versions that a worker may be behind because it has yet to adopt. lag_left: versions that
        a group sampled now may be behind when its turn to be trained comes.

        A worker that samples in batches takes a batch at a time, with the newest servable version; one that batches
        continuously goes on while it adopts, as far behind as there is lag to spare.
        """
        if self.state is not WorkerStatus.SERVING or self.version < 0:
            return 0
        if newest > servable and newest - self.version > lag_left:
            return 0  # it would be too old to train by then
        behind = servable - self.version
        if self.settings.continuous:
            return self.settings.window_rows - self.rows if behind <= staleness_budget else 0
        return self.settings.window_rows if self.rows == 0 and behind <= 0 else 0

    def proven(self, version: int) -> None:
        self.version, self.refusal = version, None

    def mark_unhealthy(self) -> None:
        if self.state is WorkerStatus.SERVING:
            self.state = WorkerStatus.UNHEALTHY

    def cleared(self) -> None:
        if self.state is WorkerStatus.UNHEALTHY:
            self.state = WorkerStatus.SERVING

    def drain(self) -> None:
        if self.state is not WorkerStatus.DEAD:
            self.state = WorkerStatus.DRAINING

    def lose(self, reason: Exception) -> None:
        if self.state is not WorkerStatus.DEAD:
            self.state, self.reason = WorkerStatus.DEAD, reason
