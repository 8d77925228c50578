"""Finishes work that must not be cut in two: an update with its booking, a call of memory with its answer, a checkpoint.

Learner and memory go on with a call whoever gives up waiting for it. So where a loop is cancelled because another one
stopped the run, such work goes on, and the run's end waits for it: what the parts hold is then what the books say.
Each call has a deadline of its own (cluster.learner_call_s, cluster.memory_call_s), so the wait has one too.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from cluster.flow.change_signal import cancelled

Result = TypeVar("Result")


def errors_of(tasks: Iterable[asyncio.Task[Any]]) -> list[BaseException]:
    """Of those that have ended."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return [error for task in ended if (error := task.exception()) is not None]


class Undivided:
    """The work under way."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()
        self._left: list[asyncio.Task[Any]] = []  # whose callers were cancelled: nobody hears what they raise

    async def __call__(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Its result, or what it raised. Cancelling the caller leaves the work under way."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._left.append(task)
            raise

    async def finished(self) -> list[BaseException]:
        """Returns when nothing is under way: the errors that no caller was told, as all of them had been cancelled."""
        # What has ended but is not discarded yet: from Python 3.12 on, waiting for it would never let the loop discard it.
        while open_ones := [task for task in self._under_way if not task.done()]:
            await asyncio.gather(*open_ones, return_exceptions=True)
        left, self._left = self._left, []
        return errors_of(left)

    async def given_up(self) -> list[BaseException]:
        """Cancels the work: the process ends without a checkpoint, as if it had been killed. Returns as `finished`."""
        await cancelled(set(self._under_way))
        return await self.finished()
