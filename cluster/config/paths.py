"""Paths in a configuration: relative to the file that names them, on the command line to the working directory; `~` is home.

    raw settings -> whatever names a file of the user's becomes a whole path -> RunConfig

A stored configuration holds whole paths, so a run is resumed from anywhere. The configuration of an older run holds them
as they were given: relative to the working directory of that time. That is what lies above its run.directory and run.name
where both are relative and the run was not moved; the working directory of now is looked in too.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cluster.config.run_folder import is_run
from loading.dotted_path import CODE_SUFFIX, split_code

DATA = ("task.path", "task.held_out_path")
FOLDERS = ("model.name", "memory.encoder")
"""A hub id or a folder: only what is there, or can be nothing but a path, is taken for one."""
CODE = (
    *("task.kind", "task.scorer", "learner.advantage", "learner.loss", "learner.schedule", "actors.engine"),
    *("memory.exploit_formula", "memory.explore_formula"),
)
CODE_IN_LISTS = {"task.rewards": "name", "actors.pools": "engine"}
"""Lists of tables, and the key of each table that names code."""
RUN_DIRECTORY = "run.directory"


def begun_in(raw: dict[str, Any], config_file: Path) -> Path | None:
    """The working directory in which a stored run was begun, as far as its own configuration tells. raw: of the file alone."""
    folder, run = config_file.absolute().parent, raw.get("run", {})
    place = [run.get("directory", "runs"), run.get("name", "run")] if isinstance(run, dict) else []
    if not is_run(folder) or not place or not all(isinstance(part, str) and part for part in place):
        return None
    below = Path(os.path.normpath(Path(*place))).parts
    above = folder.parts[: -len(below)]
    return Path(*above) if above and folder.parts[-len(below) :] == below else None


def place_paths(raw: dict[str, Any], config_file: Path, overridden: Collection[str], begun: Path | None = None) -> None:
    """In place. overridden: the keys that the command line gave. begun: `begun_in`."""
    folder = config_file.absolute().parent
    stored = is_run(folder)
    here = Path.cwd()
    of_now = (here, folder)
    of_the_file = (*([begun] if begun else []), *of_now) if stored else (folder, here)
    for key in (*DATA, *FOLDERS, *CODE, RUN_DIRECTORY, *CODE_IN_LISTS):
        section, name = key.split(".")
        table = raw.get(section)
        if not isinstance(table, dict) or name not in table:
            continue
        given_here = any(key == o or key.startswith(f"{o}.") for o in overridden)
        table[name] = _placed(key, table[name], of_now if given_here else of_the_file)


def _placed(key: str, value: Any, bases: Sequence[Path]) -> Any:
    if key in CODE_IN_LISTS and isinstance(value, list):
        return [_entry(part, CODE_IN_LISTS[key], bases) for part in value]
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return value  # the settings refuse it, with its place
    if key == RUN_DIRECTORY:
        return _expanded(value)
    if key in DATA:
        return _whole(value, bases)
    return _code(value, bases) if key in CODE else _folder(value, bases)


def _entry(entry: Any, key: str, bases: Sequence[Path]) -> Any:
    named = isinstance(entry, dict) and isinstance(entry.get(key), str) and "\0" not in entry[key]
    return entry | {key: _code(entry[key], bases)} if named else entry


def _code(value: str, bases: Sequence[Path]) -> str:
    file, name = split_code(value)
    return f"{_whole(file, bases)}:{name}" if file.endswith(CODE_SUFFIX) else value


def _folder(value: str, bases: Sequence[Path]) -> str:
    meant = value.startswith((".", "~", "/"))
    found = next((base / value for base in bases if "/" in value and os.path.isdir(base / value)), None)
    return _whole(value, bases) if meant else os.path.abspath(found) if found else value


def _whole(value: str, bases: Sequence[Path]) -> str:
    """The first that is there; where none is, the first."""
    candidates = [base / _expanded(value) for base in bases]
    return os.path.abspath(next((c for c in candidates if os.path.exists(c)), candidates[0]))


def _expanded(value: str) -> str:
    return os.path.expanduser(value)
