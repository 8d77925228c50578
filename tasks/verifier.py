"""Judges answers within a hard deadline each; implements contracts.ports.Verifier.

    answers --quick judge--> decided here (strings and exact fractions, microseconds)
            --rest--> child processes, `verifier_processes` at once, one answer each at a time
                          reply -> Scored | Invalid
                          late or dead -> child replaced, and the answer judged again by another; late or dead
                                          again -> the problem's reference is judged in its place: where that
                                          goes well the answer is wrong, or 0 for the reward part that they
                                          were at, else it is Invalid

Consumes answers, produces verdicts in order. `verify` waits for children alone and for each no longer than its
deadline, so it ends after at most 3 x (start + timeout) x heavy answers / processes. `close` unblocks it at once.
"""

import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from contracts.errors import ConfigError
from contracts.ports import Answer
from contracts.verdict import Invalid, Scored, Verdict
from tasks.config import TaskSettings
from tasks.judge import quick_judge
from tasks.verifier_child import encode_answer
from tasks.verifier_process import START_DEADLINE_S, VerifierProcess

POLL_S = 0.2
CLOSED = "the verifier was closed"


class ProcessVerifier:
    """Any thread may call it; one lock serves them one after the other.

    Children start when a heavy answer first needs them. Where every answer is heavy through users' code, one is
    started at construction: raises ConfigError if it cannot load that code.
    """

    def __init__(self, settings: TaskSettings) -> None:
        self._settings = settings
        self._quick = quick_judge(settings)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._idle: list[VerifierProcess] = []
        self._starting: set[VerifierProcess] = set()
        self._busy: dict[VerifierProcess, int] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._waiting: deque[int] = deque()
        self._ended_judges: dict[int, list[str]] = {}
        self._ended_in: dict[int, str] = {}
        self._start_failures = 0
        self._last_start_failure = ""
        if self._quick is None:
            self._try_users_code()

    def verify(self, answers: Sequence[Answer]) -> list[Verdict]:
        with self._lock:
            self._verdicts, self._ended_judges, self._ended_in = {}, {}, {}
            heavy: deque[int] = deque()
            for i, answer in enumerate(answers):
                scored = self._quick.judge(answer) if self._quick is not None else None
                if scored is None:
                    heavy.append(i)
                else:
                    self._verdicts[i] = scored
            self._judge_in_children(answers, heavy)
            return [self._verdicts[i] for i in range(len(answers))]

    def close(self) -> None:
        """Kills the children; answers under way become Invalid, and so do heavy answers from now on."""
        self._closed.set()
        with self._lock:
            for child in self._children():
                child.kill()
            self._idle, self._starting, self._busy = [], set(), {}

    def _judge_in_children(self, answers: Sequence[Answer], waiting: deque[int]) -> None:
        self._waiting, self._start_failures = waiting, 0
        while waiting or self._busy:
            if self._closed.is_set():
                self._give_up([*waiting, *self._busy.values()], CLOSED)
                return
            if self._start_failures > 2 and not self._busy and not self._idle:
                self._give_up(waiting, self._last_start_failure)
                return
            self._assign(answers, waiting)
            self._listen()
            self._end_the_late()

    def _give_up(self, indices: Sequence[int] | deque[int], reason: str) -> None:
        self._verdicts |= dict.fromkeys(indices, Invalid(reason))

    def _assign(self, answers: Sequence[Answer], waiting: deque[int]) -> None:
        """Answers to idle children; new children for what still waits, up to the limit."""
        for dead in [child for child in self._idle if not child.alive]:  # killed from outside: no answer's fault
            self._idle.remove(dead)
            dead.kill()
        while waiting and self._idle:
            child, index = self._idle.pop(), waiting.popleft()
            self._busy[child] = index
            line = encode_answer(answers[index], self._ended_in[index] if self._is_given_up(index) else "")
            child.send(line, self._settings.verifier_timeout_s)
        room = self._settings.verifier_processes - len(self._children())
        for _ in range(min(room, len(waiting) - len(self._starting))):
            self._starting.add(VerifierProcess(self._settings))

    def _listen(self) -> None:
        """Wait for any child's word, the nearest deadline or POLL_S, then take in what was said."""
        children = {child.replies_fd: child for child in (*self._busy, *self._starting)}
        poller = select.poll()  # select() fails for file descriptors above 1023, poll() does not
        for child in children.values():
            poller.register(child.replies_fd, select.POLLIN)
            if child.wants_to_send:
                poller.register(child.requests_fd, select.POLLOUT)
        nearest_s = min((child.deadline_s for child in children.values()), default=0.0) - time.monotonic()
        spoken = {fd for fd, _ in poller.poll(1000.0 * min(POLL_S, max(nearest_s, 0.0)))}
        for child in children.values():
            if child.requests_fd in spoken:
                child.flush()
            if child.replies_fd in spoken or not child.alive:
                self._hear(child)

    def _hear(self, child: VerifierProcess) -> None:
        try:
            reply = child.receive()
        except EOFError as death:
            self._reap(child, str(death))
            return
        if reply is None:
            return
        if child in self._starting:
            if "error" in reply:  # users' code that cannot be loaded: the process did start
                self._start_failed(child, str(reply["error"]))
                return
            self._starting.discard(child)
        else:
            self._take_in(self._busy.pop(child), _verdict(reply))
        self._idle.append(child)

    def _end_the_late(self) -> None:
        now = time.monotonic()
        for child in [child for child in (*self._busy, *self._starting) if child.deadline_s <= now]:
            limit = f"task.verifier_timeout_s = {self._settings.verifier_timeout_s:g}"
            where = child.where_it_was()
            late = f"not judged within {limit}" + (f", it was at {where}" if where else "")
            self._reap(child, late if child in self._busy else f"not ready in {START_DEADLINE_S:g} s")

    def _reap(self, child: VerifierProcess, reason: str) -> None:
        if child in self._starting:
            self._start_failed(child, f"no verifier process started: {reason}")
        else:
            child.kill()
            index = self._busy.pop(child)
            self._ended_in[index] = child.at
            self._take_back(index, reason)

    def _start_failed(self, child: VerifierProcess, reason: str) -> None:
        child.kill()
        self._starting.discard(child)
        self._start_failures += 1
        self._last_start_failure = reason

    def _take_in(self, index: int, verdict: Verdict) -> None:
        if self._is_given_up(index):
            reason = self._ended_judges[index][0]
            verdict = replace(verdict, note=reason) if isinstance(verdict, Scored) else Invalid(reason)
        self._verdicts[index] = verdict

    def _take_back(self, index: int, reason: str) -> None:
        """An answer whose judge is dead, which may have had other reasons than the answer the first time."""
        if self._is_given_up(index):
            self._verdicts[index] = Invalid(self._ended_judges[index][0])
        else:
            self._ended_judges.setdefault(index, []).append(reason)
            self._waiting.appendleft(index)

    def _is_given_up(self, index: int) -> bool:
        """Two judges ended over it."""
        return len(self._ended_judges.get(index, ())) >= 2

    def _children(self) -> list[VerifierProcess]:
        return [*self._idle, *self._starting, *self._busy]

    def _try_users_code(self) -> None:
        self._starting.add(VerifierProcess(self._settings))
        while self._starting:
            self._listen()
            self._end_the_late()
        if not self._idle:
            raise ConfigError(self._last_start_failure)


def _verdict(reply: dict[str, object]) -> Verdict:
    match reply:
        case {
            "value": float(value),
            "correct": bool(correct),
            "parts": dict(parts),
            "note": str(note),
            "failed": list(f),
        }:
            return Scored(value, correct, parts, note, tuple(f))
        case {"invalid": str(reason)}:
            return Invalid(reason)
    return Invalid(f"the verifier process sent {str(reply)[:100]}")
