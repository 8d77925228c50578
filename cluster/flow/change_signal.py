"""One signal for every loop of a run: given after each change of state, it wakes all who wait."""

import asyncio

RECHECK_S = 30.0


class Signal:
    """Wakes every waiter after each change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float = RECHECK_S) -> None:
        """Returns after the next change, or after `timeout_s`: who waits looks again, whatever was forgotten."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass


async def cancelled(tasks: "set[asyncio.Task[None]] | list[asyncio.Task[None]]") -> None:
    """Cancel, and return when all have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
