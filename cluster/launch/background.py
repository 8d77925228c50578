"""Loops that run while the body of a `with` does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from cluster.flow.change_signal import cancelled


@asynccontextmanager
async def background_tasks(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Loops that run while the body does; an error of theirs is raised at its end, none of it is lost."""
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        await cancelled(tasks)
    for error in failed:
        if error is not None:
            raise error
