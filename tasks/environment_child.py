"""The process in which users' environments live: `python -m tasks.environment_child`, JSON lines in and out.

    first line: task settings                        ->  {"ready": true} or {"error": ".."}
    {"id", "step": key, "text", "problem"}           ->  {"id", "outcome", "text"} or {"id", "fault": ".."}
    {"close": key}                                       the rollout is over

Every step runs on a thread of its own, so one that sleeps delays no other; one that is late is reported as a fault
with the line that it is at. What takes the whole process with it (os._exit, a C call that never ends) is the parent's to
see: environment_host.py. The process ends when its input closes, and takes along what users' code left running.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import IO, Any

from contracts.errors import MemrError
from contracts.ports import Environment, EnvironmentReply, Task
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from loading.dotted_path import short_name
from loading.users_code import UsersCodeError, call, failure_text, place_in, refused
from tasks.config import TaskSettings
from tasks.users_task import load_users_task
from tasks.verifier_child import take_over_pipes

LOOK_S = 0.1
"""Between two looks at the steps under way."""
SILENT_S = 1.0
"""Beyond the limit: the watch itself did not run, so a C call holds the interpreter; the stack goes to standard error."""

ORPHAN_GRACE_S = 10.0
"""Beyond the limit: then the kernel ends a process whose parent did not."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call of users' code under way in a thread of its own."""

    key: str
    thread: threading.Thread
    ends_s: float
    """On time.monotonic."""


class Worlds:
    """The open environments of one process, by key. replies: where lines go."""

    def __init__(self, task: Task, settings: TaskSettings, replies: IO[bytes]) -> None:
        self._task, self._replies = task, replies
        self._what = f"the environment of task.kind = '{short_name(settings.kind)}'"
        self._limit_s = settings.environment_timeout_s
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: dict[str, Environment] = {}
        self._under_way: dict[int, Step] = {}
        self._loop = asyncio.new_event_loop()  # of all async environments: what they open on it stays usable
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def serve(self, message: dict[str, Any]) -> None:
        if "close" in message:
            threading.Thread(target=self._close, args=(message["close"],), daemon=True).start()
            return
        thread = threading.Thread(target=self._step, args=(message,), daemon=True)
        with self._lock:
            self._under_way[message["id"]] = Step(message["step"], thread, time.monotonic() + self._limit_s)
        thread.start()

    def say(self, message: dict[str, Any]) -> None:
        self._replies.write(json.dumps(message).encode() + b"\n")
        self._replies.flush()

    def _step(self, message: dict[str, Any]) -> None:
        try:
            reply = self._reply(message)
        except UsersCodeError as error:
            reply = {"fault": str(error)}
        except Exception as error:  # noqa: BLE001  an attribute that is not there, a reply that is no JSON: data too
            reply = {"fault": failure_text(self._what, error)}
        if os.getpid() != self._pid:  # users' code forked, and its copy of us came back from it too
            os._exit(0)
        with self._lock:
            if self._under_way.pop(message["id"], None) is not None:
                self.say({"id": message["id"]} | reply)

    def _reply(self, message: dict[str, Any]) -> dict[str, Any]:
        key = message["step"]
        environment = self._open.get(key)
        if environment is None and message["problem"] is None:  # it came with the first step, to a process before this
            return {"fault": "the process that held this rollout's environment ended meanwhile"}
        if environment is None:
            environment = self._open[key] = self._settled(self._task.environment, Problem(*message["problem"]))
        given = self._settled(environment.step, message["text"])
        if not isinstance(given, EnvironmentReply) or not isinstance(given.text, str):
            raise refused(self._what, environment.step, given, "an EnvironmentReply with an outcome and a text")
        if given.outcome not in list(TurnOutcome):
            raise refused(self._what, environment.step, given.outcome, f"one of {', '.join(TurnOutcome)} as outcome")
        return {"outcome": str(given.outcome), "text": given.text}

    def _settled(self, function: Any, argument: Any) -> Any:
        """What the function gives, awaited where it is async."""
        return call(self._what, self._awaited, function, argument, blame=function)

    def _awaited(self, function: Any, argument: Any) -> Any:
        given = function(argument)
        if not inspect.isawaitable(given):
            return given
        coroutine = asyncio.wait_for(given, self._limit_s)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=2 * self._limit_s)

    def _close(self, key: str) -> None:
        environment = self._open.pop(key, None)
        with contextlib.suppress(UsersCodeError):
            if environment is not None and callable(close := getattr(environment, "close", None)):
                call(self._what, self._awaited, lambda _: close(), None, blame=close)

    def _watch(self) -> None:
        while True:
            # Anew each time: they act when this loop stands still.
            faulthandler.dump_traceback_later(self._limit_s + SILENT_S)
            signal.setitimer(signal.ITIMER_REAL, self._limit_s + ORPHAN_GRACE_S)
            time.sleep(LOOK_S)
            with self._lock:
                late = [(number, step) for number, step in self._under_way.items() if step.ends_s <= time.monotonic()]
                for number, step in late:
                    del self._under_way[number]
                    self._open.pop(step.key, None)
                    self.say({"id": number, "fault": self._late(step)})

    def _late(self, step: Step) -> str:
        """Where the step is; its thread is asked to end, which a loop in Python hears and a sleep does when it wakes."""
        frame = sys._current_frames().get(step.thread.ident or 0)
        stack = [(one.filename, one.lineno) for one in traceback.extract_stack(frame)] if frame is not None else []
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(step.thread.ident or 0), ctypes.py_object(SystemExit))
        limit = f"task.environment_timeout_s = {self._limit_s:g}"
        return f"{self._what} was not back within {limit}, it was at {place_in(stack)}"


def main() -> None:
    """Serves requests on standard input until it ends: one JSON line each, replies as lines on standard output."""
    requests, replies = take_over_pipes()
    settings = TaskSettings.model_validate_json(requests.readline())
    try:
        worlds = Worlds(load_users_task(settings), settings, replies)
    except MemrError as error:
        replies.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    worlds.say({"ready": True})
    for line in requests:
        worlds.serve(json.loads(line))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
