"""Finished cells as two tables: what each arm reached against off, and what happened in training."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.arms_plan import MEASURES, OFF, Cell, Result, compare, values
from benchmarks.results_table import show

COLUMNS = {
    "sampled in training: first": "accuracy_first",
    "last": "accuracy_last",
    "entropy: first": "entropy_first",
    "last ": "entropy_last",
    "silent groups": "silent_groups",
    "moved by memory": "moved_groups",
    "of squared advantage": "bonus_advantage_share",
    "wait for memory s": "wait_memory_s",
}
"""Of the training table, and the fields of `training_facts` behind them; the last is per update."""
PILOT = "PILOT: too few seeds to decide anything"


def show_arms(stage: int, done: Mapping[Cell, Result], results: Path) -> None:
    """Print both tables and write memory_arms.json and memory_arms_training.json (stage 2: memory_arms_135m...)."""
    if not done:
        print("no finished cells")
        return
    name = "memory_arms" if stage == 1 else "memory_arms_135m"
    fewest = min(len(values(done, task, OFF, MEASURES[0])) for task in {cell.task for cell in done})
    note = "95 % t-intervals of paired differences from off; seeds: pairs; more seeds: until +-0.05"
    note = f"{PILOT}; {note}" if fewest < 4 else note
    show(name, f"Memory's reward against plain GRPO, stage {stage}", comparison_rows(done), note, results)
    show(f"{name}_training", f"The same runs in training, stage {stage}", training_rows(done), note, results)


def comparison_rows(done: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """A row per task, arm and measure."""
    return [_row(done, task, arm, measure) for task, arm in _sides(done) for measure in MEASURES]


def training_rows(done: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """A row per task and arm, means over seeds: shares of groups and of the squared advantage; seconds of a whole run."""
    rows = []
    for task, arm in _sides(done):
        mine = [result for cell, result in sorted(done.items()) if (cell.task, cell.arm) == (task, arm)]
        facts = {key: statistics.fmean(float(r["training"][key]) for r in mine) for key in COLUMNS.values()}
        row = {"task": task, "arm": arm} | {column: facts[key] for column, key in COLUMNS.items()}
        rows.append(row | {"seconds": statistics.fmean(float(r["seconds"]) for r in mine)})
    return rows


def _sides(done: Mapping[Cell, Result]) -> list[tuple[str, str]]:
    """Tasks with their arms, off first."""
    return sorted({(cell.task, cell.arm) for cell in done}, key=lambda side: (side[0], side[1] != OFF, side[1]))


def _row(done: Mapping[Cell, Result], task: str, arm: str, measure: str) -> dict[str, Any]:
    mine = values(done, task, arm, measure)
    row: dict[str, Any] = {"task": task, "arm": arm, "measure": measure, "runs": len(mine)}
    row["mean"] = statistics.fmean(mine.values())
    if arm == OFF or not mine.keys() & values(done, task, OFF, measure).keys():
        return row | dict.fromkeys(("pairs", "difference", "half-width", "verdict", "more seeds"), "-")
    found = compare(done, task, arm, measure)
    return row | {
        "pairs": found.n,
        "difference": found.mean,
        "half-width": found.half_width if found.n > 1 else "-",
        "verdict": str(found.verdict),
        "more seeds": found.seeds_missing,
    }
