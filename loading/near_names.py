"""Finds the path that a misspelt one meant: each part that does not exist is replaced by the nearest that does."""

import difflib
import os
from pathlib import Path

ALIKE = 0.6
"""Of difflib: the least likeness of a name that is proposed."""


def near_path(path: Path, *, folder: bool) -> Path | None:
    """A path that is there and differs from `path` in the spelling of some parts; None where there is none. folder: it has
    to be one."""
    absolute = Path(os.path.abspath(path))
    here = Path(absolute.anchor)
    parts = absolute.parts[1:]
    try:
        for number, part in enumerate(parts, 1):
            found = (
                here / part if (here / part).exists() else _nearest(here, part, folder=folder or number < len(parts))
            )
            if found is None:
                return None
            here = found
    except OSError:  # a part without read permission, or too long for a name
        return None
    return None if here == absolute else here


def did_you_mean(path: Path, *, folder: bool) -> str:
    """A sentence, " Did you mean '..'?", or nothing."""
    near = near_path(path, folder=folder)
    return f" Did you mean '{near}'?" if near is not None else ""


def _nearest(inside: Path, name: str, *, folder: bool) -> Path | None:
    """Of files the stem counts, and of two that are spelt alike the one with the same suffix: a.py is not like b.py."""
    if folder:
        named = {entry.name: entry for entry in inside.iterdir() if entry.is_dir()}
    else:
        entries = sorted(inside.iterdir(), key=lambda entry: entry.suffix == Path(name).suffix)
        named = {entry.stem: entry for entry in entries}
    close = difflib.get_close_matches(name if folder else Path(name).stem, named, n=1, cutoff=ALIKE)
    return named[close[0]] if close else None
