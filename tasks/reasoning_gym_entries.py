"""reasoning_gym's entries: asked of a process of their own, and carried by the problem from there on.

An entry is named by (stream, index) and is the same wherever it is made (`tasks.reasoning_gym_child`). Its answer and
metadata travel in `Problem.metadata`, so that the process which scores an answer has the entry that was asked.
"""

import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

from contracts.errors import ConfigError, DataError
from contracts.problem import Problem
from tasks import typed_json
from tasks.child_environment import child_environment
from tasks.reasoning_gym_child import BLOCK, STREAM

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

    Raises ConfigError for a wrong name or wrong parameters, DataError where the generator fails.
    """

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        self._name = name
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.reasoning_gym_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._last_words,
            env=child_environment(),
            start_new_session=True,
            text=True,
        )
        self._end = weakref.finalize(self, _end, self._process, self._last_words)
        self._send({"name": name, "params": dict(params)})
        self.entry(0, 0)

    def entry(self, stream: int, index: int) -> dict[str, Any]:
        """question: str, answer: str or None, metadata. The same for the same arguments, everywhere."""
        self._send({"stream": stream, "index": index})
        reply = self._receive()
        if "configuration" in reply:
            raise ConfigError(reply["configuration"])
        if "error" in reply:
            raise DataError(
                f"reasoning_gym's '{self._name}' cannot make entry {index} of stream {stream}: {reply['error']}"
            )
        entry: dict[str, Any] = typed_json.loads(reply["entry"])
        return entry

    def close(self) -> None:
        self._end()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._death() from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _death(self) -> DataError:
        self._process.wait(timeout=10.0)
        self._last_words.seek(0)
        words = self._last_words.read()[-500:].decode(errors="replace").strip()
        return DataError(
            f"the process that makes the entries of reasoning_gym's '{self._name}' ended with code "
            f"{self._process.returncode}: {words or 'it said nothing'}"
        )


def _end(process: "subprocess.Popen[str]", last_words: Any) -> None:
    process.kill()
    process.wait(timeout=10.0)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    last_words.close()
