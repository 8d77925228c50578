"""Something a person should read: a file of its own in RUN/incidents/, numbered in order, and a line in events.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALARM = "alarm_"
"""Begins the kind of an incident that is an alarm of `[alarms]`."""


def write_incident(run_path: Path, kind: str, line: dict[str, Any]) -> Path:
    """line: what is known, `headline` first of all. Two writers never take the same number."""
    folder = run_path / "incidents"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[:4]) for path in folder.iterdir() if path.name[:4].isdigit()), default=0)
    while True:
        path = folder / f"{number:04d}-{kind}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(line, indent=1) + "\n")
        except FileExistsError:
            number += 1
            continue
        return path


def append_event(run_path: Path, line: dict[str, Any]) -> None:
    """One line in one write, so that lines of two processes do not mix."""
    with (run_path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


SUPERVISOR_DIED = "supervisor_died"
"""Kind of the incident of a run whose supervisor is gone; in summary.json, what ended it."""
FINAL = frozenset({"stopped", "part_lost"})
"""Kinds of incident after which a run's process ends by itself, Ray first."""


def kinds(run_path: Path) -> list[str]:
    """In order."""
    return [path.stem.partition("-")[2] for path in sorted((run_path / "incidents").glob("*.json"))]


@dataclass(frozen=True, slots=True)
class Incident:
    """kind: as in its file's name. headline: what happened, in a sentence."""

    kind: str
    headline: str

    @property
    def is_alarm(self) -> bool:
        return self.kind.startswith(ALARM)


def incidents(run_path: Path) -> list[Incident]:
    """In order; unreadable files are left out."""
    found = []
    for path in sorted((run_path / "incidents").glob("*.json")):
        try:
            headline = str(json.loads(path.read_text())["headline"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(Incident(path.stem.lstrip("0123456789").removeprefix("-"), headline))
    return found


def headlines(run_path: Path) -> list[str]:
    """Of `incidents`."""
    return [incident.headline for incident in incidents(run_path)]


def incident_lines(run_path: Path) -> list[str]:
    """One line per kind with its last headline, alarms first: as short for a run of a month as for one of an hour."""
    by_kind: dict[str, list[Incident]] = {}
    for incident in incidents(run_path):
        by_kind.setdefault(incident.kind, []).append(incident)
    kinds = sorted(by_kind.values(), key=lambda found: not found[0].is_alarm)
    return [_line(found) for found in kinds]


def _line(found: Sequence[Incident]) -> str:
    often = f", {len(found)} times, the last" if len(found) > 1 else ""
    return f"{found[-1].kind.replace('_', ' ')}{often}: {found[-1].headline}"
