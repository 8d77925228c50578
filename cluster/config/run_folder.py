"""Is this folder a run? The one place that says so, and names the runs that may have been meant. Looks at names alone.

Whatever command is given a RUN that is none ends with exit code 2: what was named is wrong, and nothing was tried.
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from contracts.errors import ConfigError

MANIFEST = "manifest.json"
RUNS = Path("runs")
"""Where runs are kept unless run.directory says another place."""
MAX_NAMED = 8


def is_run(path: Path) -> bool:
    """Whether somebody began a run there, whole or damaged; False for what cannot be looked at."""
    return os.path.exists(path / MANIFEST)


def way_on(path: Path) -> str:
    """After an end that the run could not speak of itself: while it loaded, between two lives, by force."""
    if is_run(path):
        return f"{path}: ended before it could write a checkpoint; `memr resume {path}` goes on from where it stood"
    return "ended before there was a run: nothing is left of it, and the same command begins it"


def refuse_other_than_run(path: Path) -> None:
    """Raises ConfigError for what is no run, with the nearest one that is there."""
    if _holds_a_run(path) or (is_run(path) and _run_around(path) is None):  # adapters have a manifest.json of their own
        return
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be read: the permission is missing")
    raise ConfigError(f"{path} is not a run ({_what_it_is(path)}). {_meant(path)}")


def _run_around(path: Path) -> Path | None:
    """The run that holds it, up to RUN/memory/snapshot-x."""
    return next((folder for folder in list(path.parents)[:3] if _holds_a_run(folder)), None)


def _holds_a_run(folder: Path) -> bool:
    return is_run(folder) and os.path.exists(folder / "config.toml")


def _what_it_is(path: Path) -> str:
    if os.path.isdir(path):
        return "a folder of something else" if is_run(path) else f"no {MANIFEST}"
    if os.path.exists(path):
        return "a file; a run is a folder, for example runs/NAME"
    return "no such folder"


def _meant(path: Path) -> str:
    if around := _run_around(path):
        return f"It lies in the run {around}: give that"
    if below := _runs_in(path):
        return f"Runs in it: {_listed(below)}"
    name = path.stem if path.suffix == ".toml" else path.name
    if is_run(RUNS / name):
        return f"Did you mean {RUNS / name}?"
    beside = _runs_in(path.parent)
    known = list(dict.fromkeys([*beside, *_runs_in(RUNS)]))
    near = difflib.get_close_matches(name, [run.name for run in known], n=1, cutoff=0.6)
    guess = next((f"Did you mean {run}? " for run in known if near and run.name == near[0]), "")
    return f"{guess}Runs beside it: {_listed(beside)}" if beside or not known else f"{guess}Runs: {_listed(known)}"


def _runs_in(folder: Path) -> list[Path]:
    return sorted(_found(folder))


def _found(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from (folder / entry.name for entry in entries if _holds_a_run(folder / entry.name))
    except OSError:
        return


def _listed(runs: list[Path]) -> str:
    more = f" and {len(runs) - MAX_NAMED} more" if len(runs) > MAX_NAMED else ""
    return (", ".join(map(str, runs[:MAX_NAMED])) or "none") + more
