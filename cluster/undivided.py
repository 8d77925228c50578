"""Work that is not cut in two: an update with its booking, a call of memory with its answer, a checkpoint.

Learner and memory go on with a call whoever gives up waiting for it. So where a loop is cancelled because another one
stopped the run, such work goes on, and the run's end waits for it: what the parts hold is then what the books say.
Each call has a deadline of its own (cluster.learner_call_s, cluster.memory_call_s), so the wait has one too.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from cluster.change_signal import cancelled

Result = TypeVar("Result")


class Undivided:
    """The work under way."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    async def __call__(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Its result, or what it raised. Cancelling the caller leaves the work under way."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def finished(self) -> None:
        """Returns when nothing is under way. What failed meanwhile shows when the parts are used again."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def given_up(self) -> None:
        """Cancels the work: the process ends without a checkpoint, as if it had been killed."""
        await cancelled(set(self._under_way))
