"""reasoning_gym's entries: asked of a process of their own, and carried by the problem from there on.

An entry is named by (stream, index) and is the same wherever it is made (`tasks.reasoning_gym_child`). Its answer and
metadata travel in `Problem.metadata`, so that the process which scores an answer has the entry that was asked.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from typing import Any

from contracts.errors import ConfigError, DataError
from contracts.problem import Problem
from tasks import typed_json
from tasks.child_environment import child_environment
from tasks.reasoning_gym_child import BLOCK, STREAM

ENTRY_DEADLINE_S = 600.0
"""Of one entry, whose block of 512 some generators make with it. Far beyond the slowest known (arc_agi, under a second a
block on an idle machine), and within `supervision.progress_s`."""

__all__ = ["BLOCK", "STREAM", "Generator", "carried_entry", "carry"]


def carry(stream: int, index: int, entry: Mapping[str, Any]) -> str:
    """The problem's metadata: where the entry came from, and what its scorer needs beside the question.

    Raises DataError for an entry that JSON cannot hold.
    """
    try:
        scored_by = typed_json.dumps({"answer": entry["answer"], "metadata": entry.get("metadata")})
    except TypeError as error:
        raise DataError(
            f"reasoning_gym's entry {index} of stream {stream} cannot travel to its scorer: {error}"
        ) from error
    return json.dumps({"stream": stream, "index": index, "entry": scored_by})


def carried_entry(problem: Problem) -> dict[str, Any] | None:
    """The generator's own entry as `score_answer` takes it; None for a problem of a run before entries travelled."""
    where = json.loads(problem.metadata)
    return {"question": problem.question, **typed_json.loads(where["entry"])} if "entry" in where else None


class Generator:
    """One generator with its parameters, in a process of its own that ends with this object.

    Raises ConfigError for a wrong name or wrong parameters, DataError where the generator fails. A process that dies is
    started again, and the entry is requested once more; one that is not done within `entry_deadline_s` is ended.
    """

    def __init__(self, name: str, params: Mapping[str, Any], entry_deadline_s: float = ENTRY_DEADLINE_S) -> None:
        self._name, self._params, self._deadline_s = name, dict(params), entry_deadline_s
        self._process: _Process | None = None
        self.entry(0, 0)

    def entry(self, stream: int, index: int) -> dict[str, Any]:
        """question: str, answer: str or None, metadata. The same for the same arguments, everywhere."""
        where = f"reasoning_gym's '{self._name}', entry {index} of stream {stream}"
        reply = self._reply({"stream": stream, "index": index}, where)
        if "configuration" in reply:
            raise ConfigError(reply["configuration"])
        if "error" in reply:
            raise DataError(
                f"reasoning_gym's '{self._name}' cannot make entry {index} of stream {stream}: {reply['error']}"
            )
        entry: dict[str, Any] = typed_json.loads(reply["entry"])
        return entry

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    def _reply(self, request: Mapping[str, int], where: str) -> dict[str, Any]:
        for attempt in (1, 2):
            process = self._process = self._process or _Process(self._name, self._params, self._deadline_s)
            try:
                return process.reply_to(request)
            except TimeoutError as error:
                self.close()
                raise DataError(
                    f"{where}: not made within {self._deadline_s:g} s. Take parameters (task.generator_params) that make "
                    "easier problems, or another generator"
                ) from error
            except EOFError as death:
                self.close()
                if attempt == 2:
                    raise DataError(
                        f"{where}: the process that makes entries ended twice over it, the second time {death}"
                    ) from death
        raise AssertionError("an entry is made or an error is raised")


class _Process:
    """One child. It exits when its parent is gone."""

    def __init__(self, name: str, params: Mapping[str, Any], deadline_s: float) -> None:
        self._deadline_s, self._unread = deadline_s, b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.reasoning_gym_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=child_environment(),
            start_new_session=True,
        )
        self.end = weakref.finalize(self, _end, self._process, self._stderr)
        with contextlib.suppress(EOFError):  # the first entry says so
            self._send({"name": name, "params": dict(params), "deadline_s": deadline_s})

    def reply_to(self, request: Mapping[str, int]) -> dict[str, Any]:
        """Raises EOFError, with how it ended, where the child is dead, TimeoutError where it is late."""
        self._send(request)
        reply: dict[str, Any] = json.loads(self._line())
        return reply

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        ends_s, replies_fd = time.monotonic() + self._deadline_s, self._process.stdout.fileno()
        poller = select.poll()
        poller.register(replies_fd, select.POLLIN)
        while b"\n" not in self._unread:
            if not poller.poll(1000.0 * max(0.0, ends_s - time.monotonic())):
                raise TimeoutError
            chunk = os.read(replies_fd, 1 << 16)
            if not chunk:
                raise self._death()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> EOFError:
        self._process.wait(timeout=10.0)
        self._stderr.seek(0)
        words = self._stderr.read()[-500:].decode(errors="replace").strip()
        return EOFError(f"with code {self._process.returncode}: {words or 'it said nothing'}")


def _end(process: "subprocess.Popen[bytes]", last_words: Any) -> None:
    process.kill()
    process.wait(timeout=10.0)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    last_words.close()
