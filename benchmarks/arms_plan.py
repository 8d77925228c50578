"""Which runs an experiment over arms needs next. Pure: finished results in, cells to run out, so that a grid that was
cut off goes on where it stood, and a choice that depends on results is made the same way every time.

    every arm, the first seeds -> the best arm annealed -> off and the two best, more seeds -> until the intervals close

Fixed beforehand: an arm's rank is the mean, over tasks and the three measures, of its mean paired difference from `off`
over the first seeds; intervals have closed where those of greedy and of sampled accuracy are within 5 points everywhere.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.paired_stats import WANTED_HALF_WIDTH, Paired, paired

MEASURES = ("greedy", "sampled", "pass@8")
DECIDING = ("greedy", "sampled")
OFF = "off"
ANNEALED = "_annealed"
_MEMR = {"profile": "memr", "mix": "scaled", "no_signal": "centred", "where": "everywhere"}
ARMS: Mapping[str, Mapping[str, Any]] = {
    OFF: {"profile": "off"},
    "old_clip": {"profile": "memr", "mix": "capped", "stage": "before_normalisation", "no_signal": "normalised"},
    "scaled": _MEMR | {"stage": "before_normalisation"},
    "no_task_signal": _MEMR | {"stage": "before_normalisation", "where": "no_task_signal"},
    "no_task_signal_x10": _MEMR
    | {"stage": "before_normalisation", "where": "no_task_signal", "no_signal_weight": 10.0},
    "right_answers": _MEMR | {"stage": "after_normalisation", "where": "right_answers"},
}
"""Settings of [memory]. old_clip is the default profile of commit 57c9e8c. NAME_annealed is NAME with its whole bonus
falling to 0 over the run."""

Result = Mapping[str, Any]
"""Of a finished cell: the three measures as shares of 1, and facts of its training."""


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One run. Sorts by seed first, so that a grid that is cut off is paired as far as it came."""

    seed: int
    task: str
    arm: str


@dataclass(frozen=True, slots=True)
class Plan:
    """first_seeds: for every arm. seeds: for off and the two best. max_seeds: where intervals that do not close end."""

    tasks: tuple[str, ...]
    first_seeds: int = 4
    seeds: int = 12
    max_seeds: int = 24
    more: int = 4

    def next_cells(self, done: Mapping[Cell, Result]) -> list[Cell]:
        """The next cells of the experiment in their order; [] when it has ended."""
        for wanted in (self._first, self._annealed, self._finals, self._until_closed):
            if missing := sorted(set(wanted(done)) - set(done)):
                return missing
        return []

    def ranking(self, done: Mapping[Cell, Result]) -> list[str]:
        """Arms beside off that have all of the first seeds on every task, best first."""
        first = {cell: result for cell, result in done.items() if cell.seed < self.first_seeds}
        whole = [
            arm
            for arm in dict.fromkeys(cell.arm for cell in sorted(first))
            if all(Cell(seed, task, arm) in first for task in self.tasks for seed in range(self.first_seeds))
        ]
        return sorted((arm for arm in whole if arm != OFF), key=lambda arm: (-self._merit(first, arm), arm))

    def _first(self, _done: Mapping[Cell, Result]) -> list[Cell]:
        return self._cells(list(ARMS), range(self.first_seeds))

    def _annealed(self, done: Mapping[Cell, Result]) -> list[Cell]:
        best = next(arm for arm in self.ranking(done) if not arm.endswith(ANNEALED))
        return self._cells([best + ANNEALED], range(self.first_seeds))

    def _finals(self, done: Mapping[Cell, Result]) -> list[Cell]:
        return self._cells([OFF, *self.ranking(done)[:2]], range(self.seeds))

    def _until_closed(self, done: Mapping[Cell, Result]) -> list[Cell]:
        """The next few seeds of off and of the finalists whose intervals are open."""
        open_arms = {arm for arm in self.ranking(done)[:2] for task in self.tasks if _is_open(done, task, arm)}
        if not open_arms:
            return []
        reached = 1 + max(cell.seed for cell in done if cell.arm in open_arms)
        return self._cells([OFF, *sorted(open_arms)], range(min(reached + self.more, self.max_seeds)))

    def _cells(self, arms: Sequence[str], seeds: range) -> list[Cell]:
        return [Cell(seed, task, arm) for seed in seeds for task in self.tasks for arm in arms]

    def _merit(self, results: Mapping[Cell, Result], arm: str) -> float:
        return statistics.fmean(compare(results, task, arm, m).mean for task in self.tasks for m in MEASURES)


def memory_settings(arm: str, updates: int) -> dict[str, Any]:
    """[memory] of an arm. Raises ValueError for a name that is none."""
    base = arm.removesuffix(ANNEALED)
    if base not in ARMS or (base == OFF and arm != OFF):
        raise ValueError(f"no arm '{arm}'; known: {', '.join(ARMS)}, and each but off with {ANNEALED}")
    return dict(ARMS[base]) | ({"anneal_steps": float(updates)} if arm != base else {})


def values(results: Mapping[Cell, Result], task: str, arm: str, measure: str) -> dict[int, float]:
    """By seed."""
    return {c.seed: float(r[measure]) for c, r in sorted(results.items()) if (c.task, c.arm) == (task, arm)}


def compare(results: Mapping[Cell, Result], task: str, arm: str, measure: str) -> Paired:
    """Against off. Raises ValueError where they share no seed."""
    return paired(values(results, task, arm, measure), values(results, task, OFF, measure))


def _is_open(results: Mapping[Cell, Result], task: str, arm: str) -> bool:
    return any(compare(results, task, arm, m).half_width > WANTED_HALF_WIDTH for m in DECIDING)
