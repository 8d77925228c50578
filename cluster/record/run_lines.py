"""The lines that a run appends while it goes on: metrics.jsonl, eval.jsonl, events.jsonl, read once or as they grow.

metrics.jsonl, eval.jsonl --Tail--> JSON objects          events.jsonl --Tail--> JSON objects --from_line--> events
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from cluster.record.events.event import Event
from cluster.record.events.registry import from_line
from cluster.record.tail import MAX_LINES_BYTES, Tail
from contracts.errors import DataError
from storage.bounded_json import parse_object

METRICS, EVALUATIONS, EVENTS = "metrics.jsonl", "eval.jsonl", "events.jsonl"

Item = TypeVar("Item")
Line = dict[str, Any]


def tail_of(path: Path, max_bytes: int = MAX_LINES_BYTES) -> Tail:
    """Replay writes metrics again from the first that is missing; the supervisor adds events after a gap."""
    return Tail(path, before_gap=path.name != EVENTS, max_bytes=max_bytes)


class Growing(Generic[Item]):
    """Every line of one file, up to the last look. read: one line's object to what is kept of it."""

    def __init__(self, path: Path, read: Callable[[Line], Item]) -> None:
        self._path, self._read = path, read
        self._tail = tail_of(path)
        self._items: list[Item] = []
        self._skipped = 0

    def skip(self) -> None:
        """Passes over what is there now: later looks give what comes."""
        self._skipped = len(self._tail.look().lines)

    def look(self) -> list[Item]:
        """All so far, in order, without those that `skip` passed over. Raises DataError that names the line that is no JSON object."""
        appended = self._tail.look()
        known, self._skipped = (0, 0) if appended.anew else (len(self._items), self._skipped)
        try:
            new = [
                self._read(parse_object(line, f"{self._path}, line {number}"))
                for number, line in enumerate(appended.lines, start=self._skipped + known + 1)
            ]
        except DataError:
            self._tail, self._items = tail_of(self._path), []  # the next look says so too
            raise
        self._items = self._items[:known] + new if new or appended.anew else self._items
        return list(self._items)


class RunLines:
    """Of one run, each look reading what was appended."""

    def __init__(self, run_path: Path) -> None:
        self.metrics: Growing[Line] = Growing(run_path / METRICS, _as_it_is)
        self.evals: Growing[Line] = Growing(run_path / EVALUATIONS, _as_it_is)
        self.events: Growing[Event] = Growing(run_path / EVENTS, from_line)


def _as_it_is(line: Line) -> Line:
    return line
