"""A real run on Ray with the scripted engine, faults done to it from outside, and an account of what it left."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.record.history import Kind
from cluster.record.incidents import headlines
from cluster.record.run_log import read_log
from cluster.record.run_processes import recorded_processes
from storage.arrow import groups_from_bytes

ROOT = Path(__file__).resolve().parents[2]
MARK = "MEMR_FAULT_RUN"
"""In the environment of every process of a run, whoever started it: its own run's path."""
CHILDREN = {"raylet": "raylet", "ray head": "gcs_server"}
QUICK: dict[str, Any] = {
    "cluster.tensorboard": "false",
    "cluster.checkpoint_every_updates": 10,
    "cluster.learner_call_s": 4,
    "cluster.memory_call_s": 4,
    "cluster.worker_restarts": 1000,
    "cluster.part_restarts": 1000,
    "actors.lease_deadline_s": 3,
    "actors.num_workers": 2,
    "actors.scripted.accuracy": 0.5,
    "actors.scripted.accuracy_per_version": 0,  # a task that is solved raises an alarm of its own
    "supervision.heartbeat_s": 8,
    "supervision.progress_s": 30,
    "supervision.run_restarts": 1000,
}


class FaultRun:
    """`memr train` below its supervisor, from start to end; on the scripted engine unless `config` names another configuration."""

    def __init__(self, directory: Path, name: str, **settings: Any) -> None:
        self.path = directory / name
        config = settings.pop("config", "scripted")
        values = (
            QUICK
            | {"run.directory": directory, "run.name": name}
            | {k.replace("__", "."): v for k, v in settings.items()}
        )
        overrides = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "cluster", "train", f"configs/{config}.toml", *overrides]
        directory.mkdir(parents=True, exist_ok=True)
        self._output = (directory / f"{name}.txt").open("wb")
        environment = os.environ | {MARK: str(self.path)}
        self.process = subprocess.Popen(
            command, stdout=self._output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
        )
        self.members: set[tuple[int, float]] = set()

    @property
    def output(self) -> str:
        return (self.path.parent / f"{self.path.name}.txt").read_text()

    def steps(self) -> int:
        path = self.path / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_step(self, step: int, within_s: float = 240.0) -> float:
        """Returns when the run has made so many updates; says how long that took."""
        began = time.monotonic()
        while self.steps() < step:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output[-3000:]}"
            assert time.monotonic() - began < within_s, f"at update {self.steps()} of {step}\n{self.output[-3000:]}"
            time.sleep(0.02)
        return time.monotonic() - began

    def find(self, target: str, within_s: float = 60.0) -> psutil.Process:
        """supervisor, controller, raylet, ray head, or a name of processes.json ("worker": any of them)."""
        began = time.monotonic()
        while True:
            found = self._find(target)
            if found is not None:
                self.remember()
                return found
            assert time.monotonic() - began < within_s, f"no {target}\n{self.output[-2000:]}"
            time.sleep(0.05)

    def _find(self, target: str) -> psutil.Process | None:
        try:
            if target == "supervisor":
                return psutil.Process(self.process.pid)
            controllers = psutil.Process(self.process.pid).children()
            if target == "controller" or not controllers:
                return controllers[0] if controllers else None
            if target in CHILDREN:
                tree = controllers[0].children(recursive=True)
                return next((p for p in tree if p.name() == CHILDREN[target]), None)
            recorded = recorded_processes(self.path)
            names = [n for n, r in recorded.items() if r.alive and (n == target or n.startswith(f"{target}-"))]
            return psutil.Process(recorded[names[0]].process.pid) if names else None
        except psutil.Error:
            return None

    def remember(self) -> None:
        """Every process that the run has now; `survivors` looks for them after its end."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                self.members.add((process.pid, process.create_time()))
            except psutil.Error:
                continue

    def hit(self, target: str, number: int = signal.SIGKILL) -> int:
        """Returns the process number."""
        process = self.find(target)
        os.kill(process.pid, number)
        return process.pid

    def finish(self, within_s: float = 280.0) -> int:
        try:
            return self.process.wait(timeout=within_s)
        finally:
            self._output.close()

    def end(self) -> None:
        """Whatever happens, nothing of it stays."""
        if self.process.poll() is None:
            tree = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
            for member in tree:
                try:
                    member.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.wait(timeout=10)
        self._output.close()

    def survivors(self, within_s: float = 15.0) -> list[str]:
        """Processes of the run that still live after it: those that `remember` saw and those that carry its mark."""
        until = time.monotonic() + within_s
        while True:
            left = sorted(
                p
                for pid, born_s in self.members | marked(MARK, str(self.path))
                if (p := _living(pid, born_s)) is not None
            )
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.1)

    def headlines(self) -> list[str]:
        return headlines(self.path)

    def books(self) -> "Books":
        return read_books(self.path)


def marked(name: str, value: str) -> set[tuple[int, float]]:
    """Number and time of birth of every process that has this in its environment."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value:
                found.add((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
    return found


def _living(pid: int, born_s: float) -> str | None:
    try:
        process = psutil.Process(pid)
        same = process.create_time() == born_s and process.status() != psutil.STATUS_ZOMBIE
        return f"{pid} {process.name()}" if same else None
    except psutil.Error:
        return None


@dataclass(frozen=True, slots=True)
class Books:
    """What the durable log says of a run. lost: problems issued and finished whose fate is unknown at the end of a run."""

    issued: int
    trained: int
    ended: int
    trained_twice: int
    sampled_twice: int
    steps_in_order: bool

    @property
    def lost(self) -> int:
        return self.issued - self.trained - self.ended


def read_books(run_path: Path) -> Books:
    """Of the log alone, in an account of its own."""
    import json

    issued: set[int] = set()
    ended: set[int] = set()
    trained: Counter[int] = Counter()
    sampled: Counter[int] = Counter()
    steps: list[int] = []
    for frame in read_log(run_path / "log"):
        if frame.kind == Kind.SAMPLED:
            sampled.update(scored.group.lease_id for scored in groups_from_bytes(frame.payload))
            continue
        fields = json.loads(frame.payload)
        match frame.kind:
            case Kind.ISSUED:
                issued.add(fields["lease"])
            case Kind.ENDED:
                ended.add(fields["lease"])
            case Kind.TRAINED:
                trained.update(fields["leases"])
                steps.append(fields["step"])
            case _:
                pass
    return Books(
        issued=len(issued),
        trained=len(trained),
        ended=len(ended - set(trained)),
        trained_twice=sum(1 for count in trained.values() if count > 1),
        sampled_twice=sum(1 for count in sampled.values() if count > 1),
        steps_in_order=steps == list(range(1, len(steps) + 1)),
    )
