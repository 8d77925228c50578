"""memr's packages are found before a user's folders that have the same names (`tasks/`, `actors/`, ..).

Python looks for `tasks` in the working directory first, in every process that memr or Ray starts there. Each such process
calls `put_first` before it imports anything else of memr.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("contracts", "storage", "loading", "tasks", "actors", "memory_service", "learner", "cluster")
ROOT = Path(__file__).resolve().parents[1]


def put_first() -> None:
    """sys.path as `own_first` has it, the working directory on it, and memr's packages known by their names."""
    sys.path[:] = own_first(sys.path)
    for name in PACKAGES:
        importlib.import_module(name)


def own_first(path: Sequence[str]) -> list[str]:
    """Folders that hold something of one of our names stand behind ours; the working directory stands last."""
    here = os.getcwd()
    entries = [entry or here for entry in path]
    clash = [entry for entry in entries if _is_foreign(Path(entry)) and Path(entry).resolve() != Path(here).resolve()]
    rest = [entry for entry in entries if entry not in clash and not _same(entry, here) and not _same(entry, str(ROOT))]
    return list(dict.fromkeys([*rest, str(ROOT), *clash, here]))


def _same(entry: str, other: str) -> bool:
    return Path(entry).resolve() == Path(other).resolve()


def _is_foreign(folder: Path) -> bool:
    if folder.resolve() == ROOT:
        return False
    return any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in PACKAGES)
