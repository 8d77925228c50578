"""Something a person should read: a file of its own in RUN/incidents/, numbered in order, and a line in events.jsonl."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.record.events.event import Event, words
from cluster.record.events.failures import PartLost, Stopped
from cluster.record.events.registry import event_class, from_line
from cluster.record.events.training import AlarmRaised
from cluster.record.run_lines import EVENTS

FINAL: frozenset[type[Event]] = frozenset({Stopped, PartLost})
"""Incidents after which a run's process ends by itself, Ray first."""


def write_incident(run_path: Path, event: Event) -> Path:
    """Its file: NNNN-<name>.json. Two writers never take the same number."""
    folder = run_path / "incidents"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[:4]) for path in folder.iterdir() if path.name[:4].isdigit()), default=0)
    while True:
        path = folder / f"{number:04d}-{event.name}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(event.to_incident(), indent=1) + "\n")
        except FileExistsError:
            number += 1
            continue
        return path


def append_event(run_path: Path, event: Event) -> None:
    """One line in one write, so that lines of two processes do not mix."""
    with (run_path / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event.to_line()) + "\n")


def kinds(run_path: Path) -> list[type[Event]]:
    """The class of each incident, in order, from the names of the files alone."""
    return [event_class(_kind(path)) for path in _files(run_path)]


class IncidentFiles:
    """The incidents of one run, each file read once."""

    def __init__(self, run_path: Path) -> None:
        self._run_path = run_path
        self._read: dict[str, Event] = {}

    def look(self) -> list[Event]:
        """In order; unreadable files are left out, and tried again at the next look."""
        return [found for path in _files(self._run_path) if (found := self._event(path)) is not None]

    def _event(self, path: Path) -> Event | None:
        if path.name not in self._read:
            try:
                line = json.loads(path.read_text())
                self._read[path.name] = from_line(line | {"headline": str(line["headline"])}, _kind(path))
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return self._read[path.name]


def incidents(run_path: Path) -> list[Event]:
    """In order; unreadable files are left out."""
    return IncidentFiles(run_path).look()


def headlines(run_path: Path) -> list[str]:
    """Of `incidents`."""
    return [incident.headline for incident in incidents(run_path)]


def incident_lines(found: Iterable[Event]) -> list[str]:
    """One line per name with its last headline, alarms first: as short for a run of a month as for one of an hour."""
    by_name: dict[str, list[Event]] = {}
    for incident in found:
        by_name.setdefault(incident.name, []).append(incident)
    return [_line(same) for same in sorted(by_name.values(), key=lambda same: not isinstance(same[0], AlarmRaised))]


def _line(same: Sequence[Event]) -> str:
    often = f", {len(same)} times, the last" if len(same) > 1 else ""
    return f"{words(same[-1].name)}{often}: {same[-1].headline}"


def _files(run_path: Path) -> list[Path]:
    return sorted((run_path / "incidents").glob("*.json"))


def _kind(path: Path) -> str:
    return path.stem.lstrip("0123456789").removeprefix("-")
