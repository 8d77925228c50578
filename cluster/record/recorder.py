"""What a run leaves on disk while it goes on, and who may watch.

JSONL is the truth: metrics.jsonl (one line per update), eval.jsonl, events.jsonl, ledger/events.jsonl,
rollouts/*.parquet. Watchers (TensorBoard, the console) get the same lines and events afterwards; one that raises is dropped
with an event and the run goes on.

A power cut takes no evaluation that was told. Lines of the other files, and transcripts, may go or be torn since the newest
checkpoint: all but events and dropped groups come back when the updates are replayed. status.json is a sign of life, and is
not synced.
"""

import dataclasses
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from cluster.record.events.event import Event, Severity
from cluster.record.events.failures import WatcherFailed
from cluster.record.incidents import write_incident
from cluster.record.ledger import LedgerEvent
from cluster.record.run_lines import EVALUATIONS, EVENTS, METRICS, RunLines, tail_of
from contracts.errors import DataError
from contracts.reports import EvalReport
from contracts.rollout import ScoredGroup
from storage.arrow import read_groups, write_groups
from storage.durable import swap_file, swap_unsynced, sync, sync_directory, sync_file

LINES = (METRICS, EVENTS, "ledger/events.jsonl")


class Watcher(Protocol):
    """Shows a run to somebody. `kind` is "metrics", "eval" or "status"."""

    def watch(self, kind: str, line: dict[str, Any]) -> None: ...

    def show_event(self, event: Event) -> None: ...

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None: ...

    def close(self) -> None: ...


class Recorder:
    """Appends lines, flushes each, and tells the watchers."""

    def __init__(
        self, run_path: Path, watchers: Sequence[Watcher] = (), wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._run_path = run_path
        self._watchers = list(watchers)
        self._wall_clock = wall_clock
        self._files: dict[str, TextIO] = {}
        self._opening, self._syncing = threading.Lock(), threading.Lock()
        self._unsynced: deque[Path] = deque()  # transcripts, in the order in which they were written
        self.transcripts = True
        """Off: rollouts/ is not written, for want of disk; watchers still see the groups."""
        for folder in ("ledger", "rollouts"):
            (run_path / folder).mkdir(parents=True, exist_ok=True)

    def metrics(self, line: dict[str, Any]) -> None:
        self._append(METRICS, line)
        self._tell(lambda watcher: watcher.watch("metrics", line))

    def evaluation(self, report: EvalReport) -> None:
        line = dataclasses.asdict(report)
        self._append(EVALUATIONS, line)
        sync(self._file(EVALUATIONS))
        self._tell(lambda watcher: watcher.watch("eval", line))

    def last_step(self) -> int:
        """Of the metrics on disk; 0 where there are none."""
        return max((int(line["step"]) for line in self.lines.metrics.look()), default=0)

    @property
    def lines(self) -> RunLines:
        """What is on disk, of this life and earlier ones; read when it is asked for, and not kept."""
        return RunLines(self._run_path)

    def add_watcher(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def evaluations_done(self) -> set[tuple[int, int, int | None]]:
        """(step, max_new_tokens, k) of the evaluations on disk."""
        return {(line["step"], line["max_new_tokens"], line["k"]) for line in self.lines.evals.look()}

    def event(self, event: Event) -> None:
        """What happened, now. A problem gets a file of its own in incidents/ first."""
        event = event.at(self._wall_clock())
        if event.severity is Severity.PROBLEM:
            write_incident(self._run_path, event)
        self._append(EVENTS, event.to_line())
        self._tell(lambda watcher: watcher.show_event(event))

    def ledger_event(self, event: LedgerEvent) -> None:
        self._append("ledger/events.jsonl", dataclasses.asdict(event))

    def ledger_anew(self, events: Iterable[LedgerEvent]) -> None:
        """After a resume the file tells what the ledger knows, not what a lost process had still meant to do."""
        path = self._run_path / "ledger" / "events.jsonl"
        temporary = path.with_suffix(".partial")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(dataclasses.asdict(event)) + "\n" for event in events)
        temporary.replace(path)

    def groups(self, step: int, groups: Sequence[ScoredGroup], fate: str = "trained") -> None:
        """The batch of one update, or dropped groups, as one Parquet file."""
        first = min(scored.group.lease_id for scored in groups)
        if self.transcripts:
            path = self._run_path / "rollouts" / f"step-{step:06d}-{fate}-{first:08d}.parquet"
            write_groups(groups, path)
            self._unsynced.append(path)
        self._tell(lambda watcher: watcher.show_groups(groups))

    def restore_transcripts(self, step: int) -> None:
        """Of an earlier life, after its checkpoint of `step`, which nobody synced: what a power cut tore goes, the others
        are synced with the next checkpoint."""
        for path in sorted((self._run_path / "rollouts").glob("step-*-*.parquet")):
            number = path.name.split("-")[1]
            if number.isdecimal() and int(number) >= step:
                try:
                    read_groups(path)
                except DataError:
                    path.unlink()
                else:
                    self._unsynced.append(path)

    def status(self, line: dict[str, Any]) -> None:
        """`status.json`, replaced whole: what `memr status` reads of a live run."""
        line = {"time_s": self._wall_clock()} | line
        swap_unsynced(self._run_path / "status.json", json.dumps(line))
        self._tell(lambda watcher: watcher.watch("status", line))

    def sync(self) -> None:
        """Every line and transcript so far is safe from a power cut, lines of an earlier process too; evaluations were at
        once. May be called from another thread while the loop goes on writing."""
        with self._syncing:
            for name in LINES:
                if name in self._files or (self._run_path / name).exists():
                    self._file(name)
                    sync_file(self._run_path / name)
            self._sync_transcripts()

    def _sync_transcripts(self) -> None:
        for _ in range(len(self._unsynced)):
            with suppress(FileNotFoundError):  # somebody took it away
                sync_file(self._unsynced[0])
            self._unsynced.popleft()
        sync_directory(self._run_path / "rollouts")

    def close(self) -> None:
        self._tell(lambda watcher: watcher.close())
        self.sync()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _append(self, name: str, line: dict[str, Any]) -> None:
        file = self._file(name)
        file.write(json.dumps(line) + "\n")
        file.flush()

    def _file(self, name: str) -> TextIO:
        with self._opening:
            if name not in self._files:
                self._files[name] = _append_to(self._run_path / name)
            return self._files[name]

    def _tell(self, action: Callable[[Watcher], None]) -> None:
        for watcher in list(self._watchers):
            try:
                action(watcher)
            except Exception as error:  # noqa: BLE001  a watcher's failure must not stop training
                self._watchers.remove(watcher)
                failed = WatcherFailed(type(watcher).__name__, repr(error)).at(self._wall_clock())
                self._append(EVENTS, failed.to_line())


def _append_to(path: Path) -> TextIO:
    """A crash may have left what is no whole line: it goes."""
    whole = b"".join(line + b"\n" for line in tail_of(path, max_bytes=sys.maxsize).look().lines)
    if path.exists() and len(whole) != path.stat().st_size:
        swap_file(path, whole)
    file = path.open("a", encoding="utf-8")
    sync_directory(path.parent)
    return file
