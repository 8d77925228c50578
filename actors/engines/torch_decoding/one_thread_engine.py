"""A plain engine on an event loop: one thread owns it, calls wait their turn."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Adapter
from contracts.ports import Engine, Generation, GenerationRequest

T = TypeVar("T")


class OneThreadEngine:
    """contracts.ports.AsyncEngine around an Engine. A call that is under way is not interrupted."""

    continuous = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    async def load_adapter(self, adapter: Adapter) -> None:
        await self._run(lambda: self._engine.load_adapter(adapter))

    async def drop_adapter(self, policy_version: int) -> None:
        await self._run(lambda: self._engine.drop_adapter(policy_version))

    async def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        return await self._run(lambda: self._engine.generate(requests, policy_version, deadline_s))

    async def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        return await self._run(lambda: self._engine.score(tokens_P, policy_version))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
