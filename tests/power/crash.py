"""Lives recorded, cut off anywhere, and taken up: what must hold on every disk that a power cut leaves.

record (a life in a process of its own, recorder.c preloaded) -> State (a moment, a cut) -> problems (empty: as promised)
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.commands.replay import replay_run
from cluster.record.adapter_registry import read_adapter
from cluster.record.checkpoint import log_floor, read_checkpoint, verify
from cluster.record.history import Kind
from cluster.record.resume import read_recovered_run
from cluster.record.run_dir import refuse_live_run
from cluster.record.run_log import BEGINNING, Position, read_log
from cluster.record.run_view import RunView, read_run
from contracts.errors import MemrError
from storage.arrow import read_groups
from storage.bounded_json import parse_object, read_object
from storage.peft_folder import PEFT_CONFIG_FILE
from tests.power.disk import (
    DATA_ALONE,
    EVERYTHING,
    NAMES_ALONE,
    NOTHING,
    CheckpointState,
    Disk,
    Operation,
    held_back,
    random_cut,
    read_record,
)
from tests.power.life import ROOT, Life, config_at

RECORDER = Path(__file__).with_name("recorder.c")
GROUPS = 4
"""Per update (tests/power/life.py)."""


def why_not() -> str:
    """Why this machine cannot record; empty where it can."""
    if sys.platform != "linux":
        return "the recorder is for Linux's C library"
    return "" if shutil.which("cc") else "no C compiler (cc): the recorder is compiled when the test runs"


@dataclass(frozen=True, slots=True)
class Recording:
    """name: for people. updates: of the whole run. base: what was on the disk before, all of it safe."""

    name: str
    operations: Sequence[Operation]
    updates: int
    base: Path | None = None

    @property
    def sites(self) -> list[str]:
        return sorted({operation.site for operation in self.operations if operation.kind == "F"})


def record(
    folder: Path, name: str, lives: Sequence[Sequence[str]], *, updates: int, base: Path | None = None
) -> Recording:
    """One life after the other in one record; all but the last die on the way. lives: arguments of tests/power/life.py.

    Asserts that the record is complete: played back whole it gives the very folder that the lives left."""
    root, out = folder / name / "disk", folder / name / "record"
    library = folder / "recorder.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(RECORDER)], check=True, timeout=120)
    if base is None:
        root.mkdir(parents=True)
    else:
        shutil.copytree(base, root)
    environment = os.environ | {"LD_PRELOAD": str(library), "RECORD_ROOT": str(root), "RECORD_FILE": str(out)}
    for number, arguments in enumerate(lives, start=1):
        command = [sys.executable, "-m", "tests.power.life", str(root), "--updates", str(updates), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == (0 if number == len(lives) else 9), done.stderr[-3000:]
    found = Recording(name, read_record(out, root), updates, base)
    played = folder / name / "played"
    Disk(found.operations, len(found.operations), base=base).write(played, EVERYTHING)
    (root / "marks").unlink()
    assert _contents(played) == _contents(root)
    return found


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@dataclass(frozen=True, slots=True)
class State:
    """The disk after `count` operations of a recording, as `cut` leaves it; syncs of the site `ignored` did not happen."""

    recording: Recording
    count: int
    cut: CheckpointState
    ignored: str = ""

    @property
    def told(self) -> list[dict[str, Any]]:
        marks = [operation.mark for operation in self.recording.operations[: self.count] if operation.kind == "M"]
        return [*([{"created": True}] if self.recording.base else []), *marks]

    def write(self, folder: Path) -> None:
        disk = Disk(self.recording.operations, self.count, self.ignored, self.recording.base)
        disk.write(folder, self.cut)


def random_state(recordings: Sequence[Recording], seed: int) -> State:
    draw = random.Random(seed)
    recording = draw.choice(recordings)
    return State(recording, draw.randint(1, len(recording.operations)), random_cut(seed))


def problems(state: State, folder: Path, *, resume: bool = True) -> list[str]:
    """What is not as promised: on the disk, then after the run was resumed and went on to its end."""
    state.write(folder)
    path = config_at(folder).run_path
    found = guarded(lambda: [*lost(path, state.told), *_lost_of_base(path, state.recording.base)])
    if found or not resume:
        return found
    return guarded(lambda: asyncio.run(_taken_up(state, folder)))


def guarded(look: Callable[[], list[str]]) -> list[str]:
    """An error is a problem."""
    try:
        return look()
    except (MemrError, OSError, ValueError, KeyError, AssertionError) as error:
        return [f"{type(error).__name__}: {error}"]


def lost(path: Path, told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the run told the world before the power went, and the disk does not show."""
    if not any("created" in mark for mark in told):
        return
    run = read_run(path)
    refuse_live_run(path)
    if run.config.run.name != path.name:
        yield "config.toml is not that of the run"
    past, _ = read_checkpoint(path)
    for folder in (path / "checkpoints").glob("step-*"):
        verify(folder)
    steps = [mark["checkpoint"] for mark in told if "checkpoint" in mark]
    if steps and past.step < steps[-1]:
        yield f"checkpoint {steps[-1]} was told, {past.step} is there"
    events = max((mark["events"] for mark in told if "events" in mark), default=0)
    if len(run.events) < events:
        yield f"{len(run.events)} events of the {events} before the newest checkpoint or the end"
    if (end := _end_of_log(path)) < (floor := log_floor(path)):
        yield f"the log ends at {end}, a checkpoint points to {floor}"
    yield from _lost_versions(path, [mark for mark in told if "published" in mark])
    evaluated = {mark["evaluated"] for mark in told if "evaluated" in mark}
    if missing := evaluated - {line["step"] for line in run.evals}:
        yield f"evaluations {missing} were told and are gone"
    yield from _lost_end(run, told)


def _lost_of_base(path: Path, base: Path | None) -> Iterator[str]:
    """Lines that were there before the recorded lives began."""
    if base is not None:
        before, now = read_run(base / "runs" / "r"), read_run(path)
        if (len(now.metrics), len(now.events)) < (len(before.metrics), len(before.events)):
            yield f"{len(now.metrics)} metrics of {len(before.metrics)}, {len(now.events)} events of {len(before.events)}"


def _lost_versions(path: Path, published: Sequence[dict[str, Any]]) -> Iterator[str]:
    for folder in (path / "adapters").glob("v*"):
        read_adapter(folder)
        read_object(folder / PEFT_CONFIG_FILE)
    if published:
        newest = published[-1]
        if not (path / "adapters" / newest["folder"]).exists():
            yield f"version {newest['published']} was served and is gone"
        past = read_recovered_run(path, config_at(path.parent.parent))
        if past.step + len(past.batches) < newest["published"]:
            yield f"version {newest['published']} was served, the log knows of {past.step + len(past.batches)}"


def _lost_end(run: RunView, told: Sequence[dict[str, Any]]) -> Iterator[str]:
    last: dict[str, Any] = next((mark for mark in reversed(told) if mark.keys() & {"begun", "ended", "finished"}), {})
    if "begun" in last and run.summary is not None:
        yield "the summary of an earlier life is back"
    if "finished" in last:
        if not run.finished:
            yield "the run was finished and is not"
        fates = Counter(line["fate"] for line in _lines(run.path / "ledger" / "events.jsonl"))
        if fates["trained"] != GROUPS * last["finished"]:
            yield f"ledger/events.jsonl of a finished run: {fates}"
        yield from _incomplete(run, last["finished"])


def _incomplete(run: RunView, updates: int) -> Iterator[str]:
    """Lines and transcripts that a finished run has."""
    if [line["step"] for line in run.metrics] != list(range(1, updates + 1)):
        yield f"metrics of steps {[line['step'] for line in run.metrics]}"
    for step in range(1, updates + 1):
        groups = [g for f in (run.path / "rollouts").glob(f"step-{step:06d}-trained-*") for g in read_groups(f)]
        if len(groups) != GROUPS:
            yield f"{len(groups)} transcripts of step {step}"


async def _taken_up(state: State, folder: Path) -> list[str]:
    life = Life(config_at(folder, state.recording.updates), nonce="after the cut")
    await life.live()
    before = {mark["published"]: mark["hash"] for mark in state.told if "published" in mark}
    again = {mark["published"]: mark["hash"] for mark in life.told if "published" in mark}
    return [
        *lost(life.path, life.told),
        *(f"version {v} has two contents" for v in before.keys() & again.keys() if before[v] != again[v]),
        *account(life.path, state.recording.updates),
    ]


def account(path: Path, updates: int) -> Iterator[str]:
    """What is wrong with a run that was resumed and says that it is finished."""
    run = read_run(path)
    yield from _incomplete(run, updates)
    versions = Counter(folder.name.split("-")[0] for folder in (path / "adapters").glob("v*"))
    yield from (f"{count} folders of {version}" for version, count in versions.items() if count > 1)
    trained = [parse_object(frame.payload, "log") for frame in read_log(path / "log") if frame.kind == Kind.TRAINED]
    if [update["step"] for update in trained] != list(range(1, updates + 1)):
        yield f"the log trains steps {[update['step'] for update in trained]}"
    leases = Counter(lease for update in trained for lease in update["leases"])
    yield from (f"lease {lease} trained {count} times" for lease, count in leases.items() if count > 1)
    ledger = run.metrics[-1]["ledger"]
    if (ledger["trained"], ledger["failed"]) != (len(leases), 0):
        yield f"the ledger says {ledger}, the log {len(leases)} trained leases"
    evaluated = Counter(line["step"] for line in run.evals)
    if any(count > 1 for count in evaluated.values()) or not {0, 3, 6, updates} <= evaluated.keys():
        yield f"evaluations {evaluated}"
    if (difference := replay_run(path).largest_difference) != 0.0:
        yield f"memory replays with a difference of {difference}"


def _end_of_log(path: Path) -> Position:
    end = BEGINNING
    for frame in read_log(path / "log"):
        end = frame.end
    return end


def _lines(path: Path) -> list[dict[str, Any]]:
    return [parse_object(line, str(path)) for line in path.read_bytes().splitlines()]


def breaking_state(recordings: Sequence[Recording], site: str, folder: Path) -> tuple[State, list[str]] | None:
    """The first state found that breaks a promise when the syncs of `site` never happen; None if there is none."""
    for resume in (False, True):
        for number, state in enumerate(_suspects(recordings, site)):
            here = folder / f"{resume}-{number}"
            found = problems(state, here, resume=resume)
            shutil.rmtree(here)
            if found:
                assert not problems(replace(state, ignored=""), here, resume=resume), "this state breaks by itself"
                shutil.rmtree(here)
                return state, found
    return None


def _suspects(recordings: Sequence[Recording], site: str) -> Iterator[State]:
    """After each time that the site should have synced: at the next few operations, and whenever the run told something."""
    for recording in recordings:
        operations = recording.operations
        missed = [i for i, operation in enumerate(operations) if operation.site == site]
        soon = {i + n for i in missed for n in range(1, 8)}
        told = {i for i in range(missed[0], len(operations)) if operations[i].kind == "M"} if missed else set()
        for count in sorted(i + 1 for i in soon | told if i < len(operations)):
            folder = operations[max(i for i in missed if i < count)].path
            for cut in (NOTHING, NAMES_ALONE, held_back(folder), DATA_ALONE):
                yield State(recording, count, cut, site)


def recordings(folder: Path) -> list[Recording]:
    """A whole run; one that dies between an adapter's rename and its sync; one that dies before its last checkpoint; one
    that was finished, is asked for more updates, and finds half lines and zeros at the end of its files."""
    whole = record(folder, "whole", [[]], updates=8)
    adapter = [
        ["--stop-at", "adapter_registry.write_adapter < adapter_registry.publish: place_folder adapters:6"],
        ["--nonce", "b"],
    ]
    last = [["--stop-at", "run_log.sync < history.sync < checkpoints._sync: sync #.log:4"], ["--nonce", "b"]]
    torn = folder / "torn"
    shutil.copytree(folder / "whole" / "disk", torn)
    for name in ("metrics.jsonl", "events.jsonl", "ledger/events.jsonl", "log/000001.log"):
        with (torn / "runs" / "r" / name).open("ab") as file:
            file.write(b'{"step": 9, "half' + bytes(30))
    return [
        whole,
        record(folder, "adapter", adapter, updates=8),
        record(folder, "last", last, updates=8),
        record(folder, "more", [["--nonce", "b"]], updates=11, base=torn),
    ]


def resumed_by_command(state: State, folder: Path) -> list[str]:
    """The same account of a run that `memr resume` itself took up, with Ray and the scripted engine."""
    state.write(folder)
    path = config_at(folder).run_path
    command = [sys.executable, "-m", "cluster", "resume", str(path), "--set", "cluster.tensorboard=false"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        return [f"memr resume: exit code {done.returncode}: {done.stdout[-2000:]} {done.stderr[-1000:]}"]
    return guarded(lambda: list(account(path, state.recording.updates)))
