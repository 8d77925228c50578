"""The moving parts as the controller sees them: asynchronous handles, whatever is behind them.

`launch/ray_handles.py` puts Ray actors behind these; tests put plain objects. `AdapterRef` is whatever carries an
adapter to a worker: an object-store reference under Ray, the adapter itself in tests.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contracts.adapter import Adapter
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport, WorkerReport
from contracts.rollout import RolloutGroup, ScoredGroup

AdapterRef = Any


class WorkerHandle(Protocol):
    """A rollout worker. Raises EngineError for a failed call, ActorLostError once the process is gone."""

    @property
    def worker_id(self) -> str: ...

    async def start(self) -> None:
        """Load the model; what it raises is for the user."""

    async def adopt(self, adapter: AdapterRef) -> None: ...

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]: ...

    async def health(self, deadline_s: float) -> float: ...

    async def report(self) -> WorkerReport: ...


class WorkerStarter(Protocol):
    """Where workers come from."""

    def create(self, worker_id: str, pool: str) -> WorkerHandle:
        """A worker of this pool (actors.pools), not yet started."""

    def end(self, worker: WorkerHandle) -> str:
        """End its process, whatever it is doing, and free its resources; says what state it was in."""


class MemoryHandle(Protocol):
    """The memory service; groups are scored in the order given."""

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]: ...

    async def save(self, directory: Path) -> str: ...

    async def restore(self, snapshot: Path) -> None: ...


class LearnerHandle(Protocol):
    """The learner; `update` is one policy update and the adapter it made."""

    async def first_adapter(self) -> Adapter: ...

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]: ...

    async def save(self, directory: Path) -> None: ...

    async def restore(self, directory: Path) -> None: ...

    async def roll_back(self, directory: Path) -> Adapter:
        """An earlier checkpoint's weights under the present version."""


Shortages = Callable[[Mapping[str, int]], Sequence[str]]


def nothing_short(_workers: Mapping[str, int]) -> Sequence[str]:
    """Reports no shortage, for services without a placement."""
    return ()


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the controller drives. memory is None with memory.profile = "off". shortages: what keeps so many workers,
    by pool, from being placed as things are now; empty where nothing does."""

    workers: WorkerStarter
    memory: MemoryHandle | None
    learner: LearnerHandle
    shortages: Shortages = nothing_short
