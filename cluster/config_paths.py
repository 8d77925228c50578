"""Paths in a configuration: relative to the file that names them, on the command line to the working directory; `~` is home.

    raw settings -> whatever names a file of the user's becomes a whole path -> RunConfig

A stored configuration holds whole paths, so a run is resumed from anywhere. The configuration of an older run holds them
as they were given: relative to the working directory of that time, which is looked in too.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cluster.run_folder import is_run
from tasks.dotted_path import CODE_SUFFIX, split_code

DATA = ("task.path", "task.held_out_path")
FOLDERS = ("model.name", "memory.encoder")
"""A hub id or a folder: only what is there, or can be nothing but a path, is taken for one."""
CODE = ("task.kind", "task.scorer")
RUN_DIRECTORY = "run.directory"


def place_paths(raw: dict[str, Any], config_file: Path, overridden: Collection[str]) -> None:
    """In place. overridden: the keys that the command line gave."""
    folder = config_file.absolute().parent
    stored = is_run(folder)
    here = Path.cwd()
    for key in (*DATA, *FOLDERS, *CODE, RUN_DIRECTORY, "task.rewards"):
        section, name = key.split(".")
        table = raw.get(section)
        if not isinstance(table, dict) or name not in table:
            continue
        given_here = any(key == o or key.startswith(f"{o}.") for o in overridden)
        bases = (here, folder) if given_here or stored else (folder, here)
        table[name] = _placed(key, table[name], bases)


def _placed(key: str, value: Any, bases: Sequence[Path]) -> Any:
    if key == "task.rewards" and isinstance(value, list):
        return [_reward(part, bases) for part in value]
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return value  # the settings refuse it, with its place
    if key == RUN_DIRECTORY:
        return _expanded(value)
    if key in DATA:
        return _whole(value, bases)
    return _code(value, bases) if key in CODE else _folder(value, bases)


def _reward(part: Any, bases: Sequence[Path]) -> Any:
    named = isinstance(part, dict) and isinstance(part.get("name"), str) and "\0" not in part["name"]
    return part | {"name": _code(part["name"], bases)} if named else part


def _code(value: str, bases: Sequence[Path]) -> str:
    file, name = split_code(value)
    return f"{_whole(file, bases)}:{name}" if file.endswith(CODE_SUFFIX) else value


def _folder(value: str, bases: Sequence[Path]) -> str:
    meant = value.startswith((".", "~", "/"))
    found = next((base / value for base in bases if "/" in value and (base / value).is_dir()), None)
    return _whole(value, bases) if meant else os.path.abspath(found) if found else value


def _whole(value: str, bases: Sequence[Path]) -> str:
    """The first that is there; where none is, the first."""
    candidates = [base / _expanded(value) for base in bases]
    return os.path.abspath(next((c for c in candidates if c.exists()), candidates[0]))


def _expanded(value: str) -> str:
    return os.path.expanduser(value)
