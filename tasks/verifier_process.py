"""The parent's end of one child process: start it, feed it, hear it, kill it. Never blocks.

    idle --send--> busy --receive--> idle          busy past its deadline, or dead: kill, and start another

Pipes are non-blocking on this side, so a stopped child cannot hold the parent; deadlines are the caller's to watch.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from contracts.verdict import SCORER
from loading.users_code import users_place
from tasks.child_environment import child_environment
from tasks.config import TaskSettings

START_DEADLINE_S = 120.0
LAST_BREATH_S = 1.0
"""Between the end of a child's pipe and its own."""


class VerifierProcess:
    """deadline_s: on time.monotonic; when the reply under way (at first: the start) must have arrived. at: what the answer
    under way is at, SCORER or a reward part of users' code."""

    def __init__(self, settings: TaskSettings, module: str = "tasks.verifier_child") -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in kill
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=child_environment(),
            start_new_session=True,  # a group of its own: Ctrl-C spares it, and kill takes what it started too
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.requests_fd, self.replies_fd = self._process.stdin.fileno(), self._process.stdout.fileno()
        for fd in (self.requests_fd, self.replies_fd):
            os.set_blocking(fd, False)
        self._unsent = b""
        self._unread = b""
        self.deadline_s = 0.0
        self.at = SCORER
        self.send(settings.model_dump_json().encode() + b"\n", START_DEADLINE_S)

    @property
    def alive(self) -> bool:
        """Looks without taking the dead child away: its process group stays ours until `kill`."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent)

    def send(self, line: bytes, time_limit_s: float) -> None:
        """Queue a request; `flush` moves it as far as the pipe takes it."""
        self.at = SCORER
        self._unsent += line
        self.deadline_s = time.monotonic() + time_limit_s
        self.flush()

    def flush(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self.requests_fd, self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent = b""  # the child is dead: `receive` will say so

    def receive(self) -> dict[str, Any] | None:
        """The reply once it is complete. Raises EOFError, with the reason, when the child is dead.

        What a child forked may hold its pipe open, so that the end of the pipe alone does not tell.
        """
        if (reply := self._next_reply()) is not None:
            return reply
        try:
            chunk = os.read(self.replies_fd, 1 << 16)
        except BlockingIOError:
            if self.alive:
                return None
            chunk = b""
        if not chunk:
            raise EOFError(self._obituary())
        self._unread += chunk
        return self._next_reply()

    def _next_reply(self) -> dict[str, Any] | None:
        """The next whole line that is more than a word of where the child is."""
        while b"\n" in self._unread:
            line, _, self._unread = self._unread.partition(b"\n")
            reply: dict[str, Any] = json.loads(line)
            if "at" not in reply:
                return reply
            self.at = str(reply["at"])
        return None

    def kill(self) -> None:
        """End the child and whatever it started. Waits for the kernel, not for the child."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, of a dead leader
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10.0)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._stderr.close()

    def where_it_was(self) -> str:
        """File and line of users' code, where the child has written down what it was at (faulthandler); "" where not."""
        return users_place(self._words().rpartition("Timeout (")[2])

    def _words(self, limit: int = 20_000) -> str:
        """The end of what the child wrote to its standard error; "" once another thread has ended it."""
        if self._stderr.closed:
            return ""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), limit, max(0, size - limit)).decode(errors="replace")

    def _obituary(self) -> str:
        until = time.monotonic() + LAST_BREATH_S
        while self.alive:
            if time.monotonic() > until:
                return "the verifier process closed its pipe"
            time.sleep(0.01)
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        words = self._words(500).strip()
        how = f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"
        return f"the verifier process ended {how}" + (f": {words}" if words else "")
