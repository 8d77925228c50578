"""What the experiment runs next, from what has finished; and that a grid which is cut off runs every cell once."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.arms_grid import cell_path, read_cells, refuse_other_settings, run_cells, run_experiment, write_cell
from benchmarks.arms_plan import ANNEALED, ARMS, OFF, Cell, Plan, Result, memory_settings
from benchmarks.arms_table import comparison_rows
from memory_service.config import MemorySettings

PLAN = Plan(tasks=("easy", "hard"), first_seeds=2, seeds=4, max_seeds=8, more=2)
QUALITY = {
    OFF: 0.0,
    "old_clip": -0.1,
    "scaled": 0.05,
    "no_task_signal": 0.1,
    "no_task_signal_x10": 0.03,
    "right_answers": 0.02,
}


def result_of(cell: Cell, noise: float = 0.01) -> dict[str, float]:
    """An accuracy that grows with the arm's quality; noise of the pair depends on the cell alone."""
    base = cell.arm.removesuffix(ANNEALED)
    annealed = 0.03 if cell.arm != base else 0.0
    jitter = random.Random(f"{cell}").uniform(-noise, noise)
    value = 0.3 + 0.05 * cell.seed + QUALITY[base] + annealed + jitter
    return {"greedy": value, "sampled": value, "pass@8": value}


def play(plan: Plan, noise: float = 0.01) -> list[list[Cell]]:
    """The rounds of a whole experiment."""
    done: dict[Cell, Result] = {}
    rounds = []
    while cells := plan.next_cells(done):
        rounds.append(cells)
        done |= {cell: result_of(cell, noise) for cell in cells}
    return rounds


def test_every_arm_then_the_best_annealed_then_more_seeds_of_the_finalists() -> None:
    first, annealed, finals = play(PLAN)
    assert {cell.arm for cell in first} == set(ARMS)
    assert len(first) == len(ARMS) * 2 * 2
    assert {cell.arm for cell in annealed} == {"no_task_signal_annealed"}
    assert {cell.arm for cell in finals} == {OFF, "no_task_signal", "no_task_signal_annealed"}
    assert {cell.seed for cell in finals} == {2, 3}


def test_intervals_that_stay_open_get_more_seeds_up_to_the_limit() -> None:
    rounds = play(PLAN, noise=0.4)
    assert max(cell.seed for cell in rounds[-1]) == PLAN.max_seeds - 1
    assert all(cell.seed < PLAN.max_seeds for cells in rounds for cell in cells)


def test_no_cell_is_asked_for_twice_and_cells_come_seed_by_seed() -> None:
    rounds = play(PLAN, noise=0.4)
    cells = [cell for cells in rounds for cell in cells]
    assert len(cells) == len(set(cells))
    assert all([cell.seed for cell in cells] == sorted(cell.seed for cell in cells) for cells in rounds)


def test_whatever_part_has_finished_the_rest_is_what_is_asked_for() -> None:
    [first, *_] = play(PLAN)
    done = {cell: result_of(cell) for cell in random.Random(0).sample(first, 7)}
    assert PLAN.next_cells(done) == sorted(set(first) - set(done))


@pytest.mark.parametrize("arm", [*ARMS, *(arm + ANNEALED for arm in ARMS if arm != OFF)])
def test_every_arm_is_a_memory_that_loads(arm: str) -> None:
    settings = MemorySettings.model_validate(memory_settings(arm, 40))
    assert settings.enabled == (arm != OFF)
    assert settings.anneal_steps == (40.0 if arm.endswith(ANNEALED) else None)


def test_the_old_clip_is_the_default_of_57c9e8c() -> None:
    was = MemorySettings.model_validate({"profile": "memr", "mix": "capped"} | {"no_signal": "normalised"})
    assert MemorySettings.model_validate(memory_settings("old_clip", 40)) == was


def test_an_unknown_arm_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no arm 'off_annealed'; known: off, old_clip"):
        memory_settings("off_annealed", 40)


class Killed(BaseException):
    """As an interrupt is: no Exception."""


class FakeRunner:
    """Writes a cell's result; is killed in the middle of the `dies_at`-th, with a half-written file left behind."""

    def __init__(self, directory: Path, dies_at: int | None = None) -> None:
        self.directory, self.dies_at = directory, dies_at
        self.ran: list[Cell] = []

    def __call__(self, cell: Cell) -> None:
        if len(self.ran) == self.dies_at:
            path = cell_path(self.directory, cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.partial").write_text('{"greedy": 0.')
            raise Killed
        self.ran.append(cell)
        write_cell(self.directory, cell, result_of(cell))


@pytest.mark.parametrize("dies_at", [0, 1, 5, 19])
def test_an_experiment_that_is_killed_anywhere_goes_on_and_runs_every_cell_once(tmp_path: Path, dies_at: int) -> None:
    killed, second = FakeRunner(tmp_path, dies_at), FakeRunner(tmp_path)
    ended: list[bool] = []
    with pytest.raises(Killed):
        run_experiment(PLAN.next_cells, lambda: read_cells(tmp_path), killed, jobs=1, end=lambda: ended.append(True))
    assert ended == [True], "what is under way is asked to stop, once"
    assert len(killed.ran) == dies_at
    assert run_experiment(PLAN.next_cells, lambda: read_cells(tmp_path), second, jobs=1) == {}
    whole = [cell for cells in play(PLAN) for cell in cells]
    assert killed.ran + second.ran == whole
    assert read_cells(tmp_path) == {cell: result_of(cell) for cell in whole}


def test_a_cell_that_fails_costs_no_other_and_is_told(tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path)

    def run(cell: Cell) -> None:
        if cell == Cell(0, "hard", "scaled"):
            raise RuntimeError("exit code 3: the disk is full")
        runner(cell)

    failed = run_experiment(PLAN.next_cells, lambda: read_cells(tmp_path), run, jobs=2)
    assert failed == {Cell(0, "hard", "scaled"): "RuntimeError: exit code 3: the disk is full"}
    assert len(runner.ran) == len(ARMS) * 4 - 1, "the others of its round, and no later round"


def test_cells_run_side_by_side_up_to_the_number_of_jobs(tmp_path: Path) -> None:
    import threading

    both = threading.Barrier(2, timeout=20)

    def meet(cell: Cell) -> None:
        both.wait()

    assert run_cells([Cell(seed, "easy", OFF) for seed in range(4)], meet, jobs=2) == {}


def test_cells_of_other_settings_are_refused() -> None:
    done: Mapping[Cell, Result] = {Cell(0, "easy", "scaled"): {"run": {"updates": 30}}}
    refuse_other_settings(done, lambda cell: {"updates": 30})
    with pytest.raises(ValueError, match="easy/scaled/seed-0.json ran with .*30.*now it would run with .*40"):
        refuse_other_settings(done, lambda cell: {"updates": 40})


def test_table_compares_with_off_seed_by_seed() -> None:
    done = {
        cell: result_of(cell, noise=0.0)
        for seed in range(4)
        for cell in (Cell(seed, "easy", OFF), Cell(seed, "easy", "scaled"))
    }
    rows = {(row["arm"], row["measure"]): row for row in comparison_rows(done)}
    assert rows["off", "greedy"]["mean"] == pytest.approx(0.375)
    assert rows["off", "greedy"]["verdict"] == "-"
    row = rows["scaled", "pass@8"]
    assert (row["pairs"], row["difference"], row["verdict"]) == (4, pytest.approx(0.05), "better")
    assert json.dumps(list(rows.values()))
