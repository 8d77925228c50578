"""An engine of the user's: checked where it is made and where it answers, on an event loop whatever it is itself.

    actors.engine = "FILE.py:name" -> name(EngineInputs) -> Engine or AsyncEngine -> UsersEngine

What it raises, and an answer that is none, names its file and line. Before it has generated anything such a fault is a
ValueError: the worker refuses the version, and the run ends with the reason where every worker does. Later it is an
EngineError: the leases go to others, and the worker is checked. It never hears of a version that it does not hold.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError, ConfigError, EngineError, LoadError, MemrError
from contracts.ports import AsyncEngine, Generation, GenerationRequest
from contracts.rollout import FinishReason
from loading.dotted_path import load_dotted
from loading.users_code import UsersCodeError, call, failure_text, refused

ASKED = ("load_adapter", "drop_adapter", "generate", "score")
"""What an engine must have."""

T = TypeVar("T")


async def start_users_engine(name: str, setting: str, given: Any) -> "UsersEngine":
    """given: what the user's function is called with. Raises ConfigError where it is not there or makes no engine, LoadError
    for what it raises."""
    make, what = load_dotted(name, setting), f"{setting} '{name}'"
    try:
        made = await asyncio.to_thread(call, what, make, given)
        if inspect.isawaitable(made):
            made = await _told(what, make, made)
    except UsersCodeError as error:
        raise LoadError(str(error)) from error
    if missing := [method for method in ASKED if not callable(getattr(made, method, None))]:
        expected = f"an engine (contracts.ports.Engine or AsyncEngine); this has no {', '.join(missing)}"
        raise ConfigError(str(refused(what, make, made, expected)))
    return UsersEngine(made, what)


class UsersEngine:
    """contracts.ports.AsyncEngine around the user's; a plain one has a thread of its own, and its calls wait their turn."""

    def __init__(self, engine: Any, what: str) -> None:
        self._engine, self._what = engine, what
        awaits = inspect.iscoroutinefunction(engine.generate)
        self._inner: AsyncEngine = engine if awaits else OneThreadEngine(engine)
        self.continuous = awaits and bool(getattr(engine, "continuous", False))
        self._held: set[int] = set()
        self._has_generated = False

    async def load_adapter(self, adapter: Adapter) -> None:
        """Raises ValueError for whatever the user's engine raises."""
        version = adapter.manifest.policy_version
        if version in self._held:
            return
        try:
            await _told(self._what, self._engine.load_adapter, self._inner.load_adapter(adapter))
        except UsersCodeError as error:
            raise ValueError(str(error)) from error
        self._held.add(version)

    async def drop_adapter(self, policy_version: int) -> None:
        if policy_version in self._held:
            self._held.discard(policy_version)
            await self._ask(self._engine.drop_adapter, self._inner.drop_adapter(policy_version))

    async def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        self._check_held(policy_version)
        method = self._engine.generate
        found = await self._ask(method, self._inner.generate(requests, policy_version, deadline_s))
        try:
            groups = [
                [_checked(generation, request) for generation in group]
                for request, group in zip(requests, found, strict=True)
            ]
            if [len(group) for group in groups] != [len(request.seeds) for request in requests]:
                raise ValueError("another number of generations than of seeds")
        except (TypeError, ValueError, AttributeError) as error:
            expected = f"for each of {len(requests)} requests a list of a Generation for each seed ({error})"
            raise self._fault(refused(self._what, method, found, expected)) from error
        self._has_generated = self._has_generated or bool(requests)
        return groups

    async def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        self._check_held(policy_version)
        method = self._engine.score
        found = await self._ask(method, self._inner.score(tokens_P, policy_version))
        try:
            return _floats(found, len(tokens_P))
        except (TypeError, ValueError) as error:
            expected = f"{len(tokens_P)} log-probs, one for each token ({error})"
            raise self._fault(refused(self._what, method, found, expected)) from error

    def close(self) -> None:
        """Of the user's engine too, where it has a `close`; what that raises changes nothing any more."""
        if isinstance(self._inner, OneThreadEngine):
            self._inner.close()
        close = getattr(self._engine, "close", None)
        if callable(close):
            try:
                call(self._what, close)
            except UsersCodeError:
                return

    def _check_held(self, version: int) -> None:
        if version not in self._held:
            raise AdapterMissingError(
                f"engine holds adapters {sorted(self._held)}, not version {version}; adopt it first"
            )

    async def _ask(self, method: Callable[..., Any], answer: Awaitable[T]) -> T:
        try:
            return await _told(self._what, method, answer)
        except UsersCodeError as error:
            raise self._fault(error) from error

    def _fault(self, error: UsersCodeError) -> Exception:
        return EngineError(str(error)) if self._has_generated else ValueError(str(error))


async def _told(what: str, function: Callable[..., Any], answer: Awaitable[T]) -> T:
    """As loading.users_code.call, for what is awaited; what memr's own errors say stays as it is."""
    try:
        return await answer
    except (KeyboardInterrupt, asyncio.CancelledError, MemrError):
        raise
    except BaseException as error:
        raise UsersCodeError(failure_text(what, error, function)) from error


def _checked(found: Any, request: GenerationRequest) -> Generation:
    """Raises TypeError, ValueError or AttributeError for what is no generation of this request."""
    tokens_T = np.asarray(found.tokens_T)
    if tokens_T.ndim != 1 or not np.issubdtype(tokens_T.dtype, np.integer):
        raise ValueError("tokens_T is no row of whole numbers")
    if len(tokens_T) > request.sampling.max_new_tokens:
        raise ValueError(f"{len(tokens_T)} tokens where {request.sampling.max_new_tokens} were asked for")
    logprobs_T = _floats(found.logprobs_T, len(tokens_T))
    return Generation(tokens_T.astype(np.int32), logprobs_T, FinishReason(found.finish_reason))


def _floats(found: Any, length: int) -> NDArray[np.float32]:
    values = np.asarray(found, np.float32)
    if values.shape != (length,):
        raise ValueError(f"an array of shape {values.shape} for {length} tokens")
    return values
