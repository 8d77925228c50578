"""The processes of a run by name, in RUN/processes.json: for stacks, for memory's slope, for an end without orphans.

Only what is recorded here, with its time of birth, is ever ended: a number that another program got since is not ours.
"""

import json
import os
import platform
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.errors import ActorLostError
from contracts.process import ProcessId

RAY_PROCESSES = {"gcs_server": "Ray's head process (gcs_server)", "raylet": "Ray's node process (raylet)"}
"""By the system's name for them; what dies with the first makes the second useless."""
OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """born_s: since the epoch, as the system tells it; 0 on another host."""

    process: ProcessId
    born_s: float

    @property
    def alive(self) -> bool:
        """On this host; of others nothing is known."""
        return self.process.here and birth(self.process.pid) == self.born_s

    @property
    def stopped(self) -> bool:
        try:
            state = psutil.Process(self.process.pid).status()
        except psutil.Error:
            return False
        return self.alive and state in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class RunProcesses:
    """The writing end; one owner. Lost kernel memory kills are counted from its construction on."""

    def __init__(self, run_path: Path) -> None:
        self._path = run_path / "processes.json"
        self._recorded: dict[str, Recorded] = {}
        self._oom_kills = oom_kills()

    @property
    def here(self) -> Mapping[str, int]:
        """Process numbers on this host by name."""
        return {name: entry.process.pid for name, entry in self._recorded.items() if entry.process.here}

    def add(self, name: str, process: ProcessId) -> None:
        self._recorded[name] = Recorded(process, birth(process.pid) if process.here else 0.0)
        self._write()

    def check_ray(self) -> None:
        """Raises ActorLostError where a Ray of our own has lost one of its processes: whoever else is missing died of it."""
        for name, words in RAY_PROCESSES.items():
            recorded = self._recorded.get(name)
            if recorded is not None and not recorded.alive:
                raise ActorLostError(f"{words} died")

    def add_own_ray(self) -> None:
        """Ray's processes that this one started, if it did."""
        for child in psutil.Process().children(recursive=True):
            try:
                if child.name() in RAY_PROCESSES:
                    self.add(child.name(), ProcessId(platform.node(), child.pid))
            except psutil.Error:
                continue

    def forget(self, name: str) -> None:
        """It was ended by a message. One that is stopped hears none: it gets SIGKILL, if it is on this host."""
        recorded = self._recorded.pop(name, None)
        if recorded is not None:
            if recorded.stopped:
                os.kill(recorded.process.pid, signal.SIGKILL)
            self._write()

    def what_became_of(self, name: str) -> str:
        """For a headline: "process 123 is stopped (SIGSTOP or a debugger)"."""
        recorded = self._recorded.get(name)
        if recorded is None:
            return "its process never reported"
        who = f"process {recorded.process.pid}"
        if not recorded.process.here:
            return f"{who} on {recorded.process.host}"
        for _ in range(10):  # one that was just killed takes a moment to go
            if not recorded.alive:
                return f"{who} is gone{self._memory_kills()}"
            if recorded.stopped:
                return f"{who} is stopped (SIGSTOP or a debugger)"
            time.sleep(0.05)
        return f"{who} runs but does not answer"

    def _memory_kills(self) -> str:
        now = oom_kills()
        killed, self._oom_kills = now - self._oom_kills, now
        return "; the kernel killed a process because memory ran out" if killed > 0 else ""

    def _write(self) -> None:
        fields = {
            name: {"host": entry.process.host, "pid": entry.process.pid, "born_s": entry.born_s}
            for name, entry in self._recorded.items()
        }
        temporary = self._path.with_name(f".{self._path.name}.partial")
        temporary.write_text(json.dumps(fields, indent=1))
        temporary.replace(self._path)


def recorded_processes(run_path: Path) -> dict[str, Recorded]:
    """What an earlier or another process wrote down; empty where there is nothing readable."""
    try:
        fields = json.loads((run_path / "processes.json").read_text())
        return {
            name: Recorded(ProcessId(str(entry["host"]), int(entry["pid"])), float(entry["born_s"]))
            for name, entry in fields.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def birth(pid: int) -> float:
    """0 where no such process lives; a dead one that nobody has waited for counts as gone."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return 0.0


def oom_kills() -> int:
    """How often the kernel ended a process of this container, or of this machine, because memory ran out."""
    for path in OOM_COUNTERS:
        try:
            fields = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
            return int(fields["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
