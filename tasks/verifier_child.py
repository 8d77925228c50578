"""A verifier's child process: `python -m tasks.verifier_child`, one JSON line in, one JSON line out.

    first line: limits and task settings  ->  {"ready": true} or {"error": ".."}
    then:       {"answer": ..}            ->  {"value": .., "correct": .., "parts": ..} or {"invalid": ".."},
                                              before it {"at": NAME} for each reward part of users' code that begins

Started as a plain program, so it inherits no threads, locks or modules; it imports neither
torch nor transformers. It ends when its input closes, as it does when the parent dies; an answer under way is ended
by the kernel's own timer, which nothing in Python or C can miss.
"""

import contextlib
import faulthandler
import json
import logging
import os
import resource
import signal
from collections.abc import Callable
from typing import IO, Any

from contracts.errors import ConfigError
from contracts.ports import Answer
from contracts.problem import Problem
from loading.users_code import UsersCodeError
from tasks.config import TaskSettings
from tasks.judge import Judge, full_judge

ORPHAN_GRACE_S = 2.0
TOLD_AT = 0.9
"""Share of the time limit after which an answer under way says where it is."""


def main() -> None:
    """Judges answers until standard input ends: one JSON line in, one out."""
    me = os.getpid()
    requests, replies = take_over_pipes()
    settings = TaskSettings.model_validate_json(requests.readline())
    with contextlib.suppress(ValueError, OSError):  # not every system can limit the address space
        resource.setrlimit(resource.RLIMIT_AS, (settings.verifier_memory_bytes, settings.verifier_memory_bytes))
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own time limit is off
    try:
        judge = full_judge(settings)
    except ConfigError as error:
        _reply(replies, {"error": str(error)})
        return
    _reply(replies, {"ready": True})

    def begins(part: str) -> None:
        if os.getpid() == me:
            _reply(replies, {"at": part})

    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, settings.verifier_timeout_s + ORPHAN_GRACE_S)
        faulthandler.dump_traceback_later(TOLD_AT * settings.verifier_timeout_s)  # the parent reads where it was
        reply = _judge(judge, *decode_answer(line), begins)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        if os.getpid() != me:  # users' code forked, and its copy of us came back from it too: one answer, one reply
            os._exit(0)
        _reply(replies, reply)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(me, signal.SIGKILL)  # the parent is gone: with this process goes what users' code left running


def encode_answer(answer: Answer, ended_in: str = "") -> bytes:
    """One line. The chat is left out: no judge needs it. ended_in: the answer ended the processes that judged it, which
    were at SCORER or at this reward part, so that the reference is tried there."""
    problem = answer.problem
    fields = {
        "problem": [problem.problem_id, problem.question, problem.answer, problem.metadata],
        "text": answer.text,
        "num_tokens": answer.num_tokens,
        "max_new_tokens": answer.max_new_tokens,
        "truncated": answer.truncated,
        "ended_in": ended_in,
    }
    return json.dumps(fields).encode() + b"\n"


def decode_answer(line: bytes) -> tuple[Answer, str]:
    """Returns the answer of a request line, and the part of users' code that its judge failed in before ("" for
    none)."""
    fields = json.loads(line)
    problem_id, question, reference, metadata = fields.pop("problem")
    ended_in = str(fields.pop("ended_in"))
    return Answer(problem=Problem(problem_id, question, reference, (), metadata), **fields), ended_in


def _judge(judge: Judge, answer: Answer, ended_in: str, begins: Callable[[str], None]) -> dict[str, Any]:
    try:
        scored = judge.give_up(answer, ended_in, begins) if ended_in else judge.judge(answer, begins)
        assert scored is not None, "the full judge always decides"
    except UsersCodeError as error:
        return {"invalid": str(error)}
    except Exception as error:  # noqa: BLE001  whatever a check raises becomes data
        return {"invalid": f"{type(error).__name__}: {str(error)[:300]}"}
    reply = {"value": scored.value, "correct": scored.correct, "parts": dict(scored.parts)}
    return reply | {"note": scored.note, "failed": list(scored.failed)}


def take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the pipes for the protocol; what users' code prints goes nowhere, what it reads is empty."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    return requests, replies


def _reply(replies: IO[bytes], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
