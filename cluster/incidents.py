"""Something a person should read: a file of its own in RUN/incidents/, numbered in order, and a line in events.jsonl."""

import json
from pathlib import Path
from typing import Any


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


FINAL = frozenset({"stopped", "part_lost"})
"""Kinds of incident after which a run's process ends by itself, Ray first."""


def kinds(run_path: Path) -> list[str]:
    """In order."""
    return [path.stem.partition("-")[2] for path in sorted((run_path / "incidents").glob("*.json"))]


def headlines(run_path: Path) -> list[str]:
    """In order; unreadable files are left out."""
    found = []
    for path in sorted((run_path / "incidents").glob("*.json")):
        try:
            found.append(str(json.loads(path.read_text())["headline"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
