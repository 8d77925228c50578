"""What the workers say of their own work, asked beside the other loops: no update waits for it.

Consumes workers' reports; produces figures (record/worker_figures.py) for metrics and status; waits for the clock alone, as
a signal comes when a worker has just finished, and would find it idle. A worker that does not answer is not asked twice at
once, and has no figures once its last report is old: what is missing is left out, never guessed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.flow.change_signal import cancelled
from cluster.flow.worker_state import WorkerState
from cluster.handles import WorkerHandle
from cluster.record.worker_figures import Sample, WorkerFigures, figures_between, restarted

ASK_EVERY_S = 1.0
"""Seconds between two questions to a worker."""
ANSWER_WITHIN_S = 10.0
OLD_S = 30.0
"""Seconds after which a worker's last report says nothing of what it does now."""


class HasWorkers(Protocol):
    """The fleet, as seen from here."""

    @property
    def workers(self) -> Sequence[WorkerState]: ...


@dataclass(slots=True, eq=False)
class _Course:
    """Of one worker. starts: what the last two updates were measured from, older first; figures: of the last update."""

    newest: Sample
    starts: "deque[Sample]" = field(default_factory=lambda: deque(maxlen=2))
    figures: WorkerFigures = field(init=False)

    def __post_init__(self) -> None:
        self.starts.append(self.newest)
        self.figures = figures_between(self.newest, self.newest)

    def take(self) -> WorkerFigures:
        """Since the last time, or the same again where no report came since."""
        if self.newest is not self.starts[-1]:
            self.figures = figures_between(self.starts[-1], self.newest)
            self.starts.append(self.newest)
        return self.figures


class WorkerReports:
    """clock: seconds, monotonic."""

    def __init__(self, fleet: HasWorkers, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet, self._clock = fleet, clock
        self.every_s = ASK_EVERY_S
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._courses: dict[str, _Course] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.ask()
                await asyncio.sleep(self.every_s)
        finally:
            await cancelled(list(self._asking.values()))

    def ask(self) -> None:
        """Every worker that owes no answer; forgets those that have left."""
        workers = {worker.worker_id: worker for worker in self._fleet.workers}
        self._courses = {name: course for name, course in self._courses.items() if name in workers}
        for name in self._asking.keys() - workers.keys():
            self._asking[name].cancel()
        for name in workers.keys() - self._asking.keys():
            self._asking[name] = asyncio.ensure_future(self._hear(name, workers[name].handle))

    def now(self) -> dict[str, WorkerFigures]:
        """By worker, over the last update and the time since: for people."""
        return {name: figures_between(course.starts[0], course.newest) for name, course in self._heard().items()}

    def take(self) -> dict[str, WorkerFigures]:
        """By worker, since the last call: for the update that is booked."""
        return {name: course.take() for name, course in self._heard().items()}

    def _heard(self) -> dict[str, _Course]:
        oldest_s, there = self._clock() - OLD_S, {worker.worker_id for worker in self._fleet.workers}
        return {
            name: course for name, course in self._courses.items() if name in there and course.newest.at_s >= oldest_s
        }

    async def _hear(self, name: str, handle: WorkerHandle) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                report = await handle.report()
        except Exception:  # noqa: BLE001  a figure that is missing must not stop a run; what ails the worker, others find
            return
        finally:
            self._asking.pop(name, None)
        sample, course = Sample(self._clock(), report), self._courses.get(name)
        if course is None or restarted(course.newest.report, report):
            self._courses[name] = _Course(sample)
        else:
            course.newest = sample
