"""The parent's end of users' environments: each step is asked of a child process, within a deadline, off the event loop.

    HostedEnvironment.step --request--> child (environment_child.py) --reply--> EnvironmentReply
                                                 late, raised, odd, dead   --> EnvironmentReply(FAULT, why)

Consumes steps of many rollouts at once, on any event loop; waits for each no longer than its limit. A child that answers
nothing at all is ended, which costs the rollouts that were open in it, and the next step starts another.
"""

import asyncio
import contextlib
import itertools
import json
import select
import threading
from typing import Any

from contracts.ports import EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from tasks.config import TaskSettings
from tasks.verifier_process import START_DEADLINE_S, VerifierProcess

GRACE_S = 3.0
"""Beyond the limit that the child keeps itself."""
POLL_S = 0.05
END_S = 10.0


class EnvironmentFaultError(Exception):
    """Why a step gave no reply."""


class HostedEnvironment:
    """Implements contracts.ports.Environment with an async step."""

    def __init__(self, host: "EnvironmentHost", problem: Problem) -> None:
        self._host = host
        self._key = host.new_key()
        self._unsent: list[Any] | None = [
            problem.problem_id, problem.question, problem.answer, list(problem.messages), problem.metadata
        ]  # fmt: skip

    async def step(self, policy_text: str) -> EnvironmentReply:
        problem, self._unsent = self._unsent, None
        try:
            reply = await self._host.ask({"step": self._key, "text": policy_text, "problem": problem})
        except EnvironmentFaultError as fault:
            return EnvironmentReply(TurnOutcome.FAULT, str(fault))
        return EnvironmentReply(TurnOutcome(reply["outcome"]), reply["text"])

    def close(self) -> None:
        """The rollout is over."""
        if self._unsent is None:
            self._host.tell({"close": self._key})


class EnvironmentHost:
    """One child at a time, started when a step first needs it; a thread of ours hears it."""

    def __init__(self, settings: TaskSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._numbers, self._keys = itertools.count(), itertools.count()
        self._child: Child | None = None

    def new_key(self) -> str:
        return str(next(self._keys))

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Raises EnvironmentFaultError."""
        child = await asyncio.to_thread(self._running)
        await child.ready()
        reply = await child.reply_to(next(self._numbers), message, self._settings.environment_timeout_s + GRACE_S)
        if "fault" in reply:
            raise EnvironmentFaultError(str(reply["fault"]))
        return reply

    def tell(self, message: dict[str, Any]) -> None:
        """Nothing comes back. A child that is gone has nothing to be told."""
        if self._child is not None:
            self._child.send(message)

    def close(self) -> None:
        """Ends the child and whatever it started."""
        with self._lock:
            if self._child is not None:
                self._child.end("the environments were closed")
                self._child.thread.join(timeout=END_S)
                self._child = None

    def _running(self) -> "Child":
        with self._lock:
            if self._child is None or self._child.ended:
                self._child = Child(self._settings)
            return self._child


class Child:
    """One process and the thread that hears it, which alone ends it. ended: why, once it is over or shall be."""

    def __init__(self, settings: TaskSettings) -> None:
        self._process = VerifierProcess(settings, "tasks.environment_child")
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[dict[str, Any]]]] = {}
        self._is_ready = False
        self.ended = ""
        self.thread = threading.Thread(target=self._hear, daemon=True)
        self.thread.start()

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            if not self.ended:
                self._process.send(json.dumps(message).encode() + b"\n", 0.0)

    def end(self, reason: str) -> None:
        with self._lock:
            self.ended = self.ended or reason

    async def ready(self) -> None:
        """Users' code is loaded. Raises EnvironmentFaultError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + START_DEADLINE_S
        while not self._is_ready and not self.ended:
            if loop.time() > until:
                self.end(f"the environments' process was not ready within {START_DEADLINE_S:g} s")
            await asyncio.sleep(POLL_S)
        if self.ended:
            raise EnvironmentFaultError(self.ended)

    async def reply_to(self, number: int, message: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Raises EnvironmentFaultError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()
        with self._lock:
            if self.ended:
                raise EnvironmentFaultError(self.ended)
            self._waiting[number] = (loop, future)
        self.send(message | {"id": number})
        try:
            async with asyncio.timeout(limit_s):
                return await future
        except TimeoutError:
            where = self._process.where_it_was()
            self.end(
                f"the environments' process answered nothing within {limit_s:g} s" + (where and f", it was at {where}")
            )
            raise EnvironmentFaultError(self.ended) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def _hear(self) -> None:
        """Until the process is over: take in what it says, move on what it is told."""
        poller = select.poll()
        poller.register(self._process.replies_fd, select.POLLIN)
        try:
            while not self.ended:
                poller.poll(1000.0 * POLL_S)
                with self._lock:
                    self._process.flush()
                while (reply := self._process.receive()) is not None:
                    self._deliver(reply)
        except EOFError as death:
            self.end(f"the environments' process is gone: {death}")
        self._process.kill()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for loop, future in waiting.values():
            _settle(loop, future, EnvironmentFaultError(self.ended))

    def _deliver(self, reply: dict[str, Any]) -> None:
        if "error" in reply:
            self.end(str(reply["error"]))
            return
        if "ready" in reply:
            self._is_ready = True
            return
        with self._lock:
            waiting = self._waiting.pop(int(reply["id"]), None)
        if waiting is not None:
            _settle(*waiting, reply)


def _settle(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[dict[str, Any]], outcome: dict[str, Any] | Exception
) -> None:
    def settle() -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    with contextlib.suppress(RuntimeError):  # the loop is closed: no waiter is left
        loop.call_soon_threadsafe(settle)
