"""A rollout worker's place in a run: what it holds, what it has in hand, whether it may take more. No I/O.

SERVING <-> SUSPECT (a call failed: it must pass its health check)
   |           |
DRAINING     GONE (lost, or retired for refusing what others have proven)
   +-----------^
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from actors.config import ActorSettings
from cluster.handles import WorkerHandle


class SeatState(StrEnum):
    SERVING = "serving"
    SUSPECT = "suspect"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Seat:
    """version: the newest that the worker has proven, -1 before the first. rows: samples in hand. refusal: why it would
    not serve a version, the last time."""

    handle: WorkerHandle
    kind: str
    settings: ActorSettings
    state: SeatState = SeatState.SERVING
    version: int = -1
    refusal: Exception | None = None
    rows: int = 0
    calls: "set[asyncio.Task[None]]" = field(default_factory=set)
    reason: Exception | None = None  # why it is GONE, where that is a loss

    @property
    def worker_id(self) -> str:
        return self.handle.worker_id

    def room(self, newest: int, servable: int, spare_lag: int, lag_left: int) -> int:
        """Samples it may take now.

        newest: version at the learner. servable: the newest that workers may prove; below `newest` where those after it
        were skipped. spare_lag: versions that a worker may be behind because it has yet to adopt. lag_left: versions that
        a group sampled now may be behind when its turn to be trained comes.

        A worker that samples in waves takes a wave at a time, with the newest servable version; one that batches
        continuously goes on while it adopts, as far behind as there is lag to spare.
        """
        if self.state is not SeatState.SERVING or self.version < 0:
            return 0
        if newest > servable and newest - self.version > lag_left:
            return 0  # it would be too old to train by then
        behind = servable - self.version
        if self.settings.continuous:
            return self.settings.window_rows - self.rows if behind <= spare_lag else 0
        return self.settings.window_rows if self.rows == 0 and behind <= 0 else 0

    def proven(self, version: int) -> None:
        self.version, self.refusal = version, None

    def suspect(self) -> None:
        if self.state is SeatState.SERVING:
            self.state = SeatState.SUSPECT

    def cleared(self) -> None:
        if self.state is SeatState.SUSPECT:
            self.state = SeatState.SERVING

    def drain(self) -> None:
        if self.state is not SeatState.GONE:
            self.state = SeatState.DRAINING

    def lose(self, reason: Exception) -> None:
        if self.state is not SeatState.GONE:
            self.state, self.reason = SeatState.GONE, reason
