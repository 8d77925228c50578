"""Every process that a run's own process started, as seen from outside: remembered by number and time of birth, so that
each can be looked at, and none outlives the run.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.record.run_processes import RAY_PROCESSES

STACK_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Member:
    """born_s: since the epoch, which tells it from a later process of the same number."""

    pid: int
    born_s: float
    name: str

    @property
    def status(self) -> str:
        """psutil's word for its state, "gone" where it lives no more."""
        try:
            process = psutil.Process(self.pid)
            state = process.status()
            return "gone" if state == psutil.STATUS_ZOMBIE or process.create_time() != self.born_s else state
        except psutil.Error:
            return "gone"

    @property
    def stopped(self) -> bool:
        return self.status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class ProcessTree:
    """Grows with every look; the dead stay remembered until the end."""

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._members: dict[tuple[int, float], Member] = {}

    @property
    def members(self) -> list[Member]:
        return list(self._members.values())

    def look(self) -> None:
        try:
            root = psutil.Process(self._root_pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                member = Member(process.pid, process.create_time(), process.name())
            except psutil.Error:
                continue
            self._members.setdefault((member.pid, member.born_s), member)

    def lost_ray(self) -> str | None:
        """Ray's own process that is gone although the run still lives; the first one in the order of their births."""
        for member in self._members.values():
            if member.name in RAY_PROCESSES and member.status == "gone":
                return RAY_PROCESSES[member.name]
        return None

    def stopped(self) -> list[Member]:
        return [member for member in self._members.values() if member.stopped]

    def end(self, within_s: float = 10.0) -> list[Member]:
        """SIGKILL to all that still live, children of the last moment included; returns those that would not go."""
        deadline = time.monotonic() + within_s
        while True:
            self.look()
            alive = [member for member in self._members.values() if member.status != "gone"]
            if not alive or time.monotonic() > deadline:
                return alive
            for member in alive:
                try:
                    os.kill(member.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)

    def write_stacks(self, path: Path) -> None:
        """What every Python process of the tree is doing, for people."""
        with path.open("w", encoding="utf-8") as file:
            for member in self._members.values():
                if member.status != "gone":
                    file.write(f"== process {member.pid} ({member.name}), {member.status}\n{_stack(member.pid)}\n")


def _stack(pid: int) -> str:
    command = [str(Path(sys.executable).with_name("py-spy")), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STACK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no stack: {error}"
    return done.stdout or f"no stack: {done.stderr.strip().splitlines()[-1:] or 'not a Python process'}"
