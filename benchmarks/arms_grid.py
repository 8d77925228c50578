"""Running cells side by side, each once: a cell is finished when its file is there, whole; all others are run again.

DIRECTORY/TASK/ARM/seed-N.json
"""

import json
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.arms_plan import Cell, Result


def cell_path(directory: Path, cell: Cell) -> Path:
    return directory / cell.task / cell.arm / f"seed-{cell.seed}.json"


def write_cell(directory: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    """All or nothing: a file under its final name is whole."""
    path = cell_path(directory, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(dict(result), indent=1) + "\n")
    temporary.replace(path)


def read_cells(directory: Path) -> dict[Cell, Result]:
    """Every finished cell."""
    found: dict[Cell, Result] = {}
    for path in sorted(directory.glob("*/*/seed-*.json")):
        seed = int(path.stem.removeprefix("seed-"))
        found[Cell(seed, path.parent.parent.name, path.parent.name)] = json.loads(path.read_text())
    return found


def refuse_other_settings(done: Mapping[Cell, Result], wanted: Callable[[Cell], Mapping[str, Any]]) -> None:
    """Raises ValueError for a finished cell that ran with other settings (its field "run") than it would run with now:
    a table must not mix them."""
    for cell, result in sorted(done.items()):
        expected = json.loads(json.dumps(dict(wanted(cell))))
        if result.get("run") != expected:
            raise ValueError(
                f"{cell.task}/{cell.arm}/seed-{cell.seed}.json ran with {result.get('run')}, now it would run with {expected}: "
                "give the old settings, or another --directory"
            )


def run_cells(
    cells: Collection[Cell], run_one: Callable[[Cell], None], jobs: int, end: Callable[[], None] = lambda: None
) -> dict[Cell, str]:
    """Every cell once, `jobs` at a time, in order; returns what failed and why. An interrupt lets nothing new start and
    calls `end`, which asks what is under way to stop."""
    failed: dict[Cell, str] = {}
    stop = threading.Event()

    def guarded(cell: Cell) -> None:
        if stop.is_set():
            return
        try:
            run_one(cell)
        except Exception as error:  # noqa: BLE001  one run's failure must not cost the others
            failed[cell] = f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(guarded, cell) for cell in cells]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            end()
            raise
    return failed


def run_experiment(
    next_cells: Callable[[Mapping[Cell, Result]], list[Cell]],
    read: Callable[[], Mapping[Cell, Result]],
    run_one: Callable[[Cell], None],
    jobs: int,
    end: Callable[[], None] = lambda: None,
) -> dict[Cell, str]:
    """Until `next_cells` asks for nothing more; returns at the first round in which a cell failed, with the failures."""
    while cells := next_cells(read()):
        if failed := run_cells(cells, run_one, jobs, end):
            return failed
    return {}
