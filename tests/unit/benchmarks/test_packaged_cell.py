"""Stage 2: what a run is started with loads, and its evaluations become the three measures."""

from pathlib import Path

import pytest

from benchmarks.arms_plan import ANNEALED, ARMS, Cell
from benchmarks.packaged_cell import CONFIGS, measures, settings_of
from cluster.config import load_config
from tasks.load import load_task

ROOT = Path(__file__).parents[3]


def line(step: int, accuracy: float, *, k: int | None = None, limit: int = 16) -> dict[str, object]:
    return {
        "step": step,
        "accuracy": accuracy,
        "k": k,
        "max_new_tokens": limit,
        "pass_at_k": accuracy * 2 if k else None,
    }


@pytest.mark.parametrize("task", sorted(CONFIGS))
@pytest.mark.parametrize("arm", [*ARMS, f"scaled{ANNEALED}"])
def test_every_run_is_one_that_loads_with_as_many_held_out_problems_as_it_asks_for(task: str, arm: str) -> None:
    settings = settings_of(Cell(3, task, arm))
    config = load_config(ROOT / CONFIGS[task], [f"{name}={value}" for name, value in settings.items()])
    assert (config.run.seed, config.task.seed, config.learner.max_policy_lag) == (3, 3, 0)
    assert config.memory.enabled == (arm != "off")
    assert config.memory.anneal_steps == (config.learner.num_updates if arm.endswith(ANNEALED) else None)
    assert len(load_task(config.task).held_out(config.eval.problems)) == config.eval.problems


def test_measures_are_the_means_of_the_last_three_evaluations_at_the_runs_own_limit() -> None:
    config = load_config(ROOT / CONFIGS["dense"])
    evals = [line(step, step / 100) for step in (0, 5, 10, 15, 20)]
    evals += [line(step, step / 1000, k=8) for step in (0, 5, 10, 15, 20)]
    evals += [line(step, 0.99, limit=64) for step in (0, 20)]
    assert measures(evals, config) == pytest.approx({"greedy": 0.15, "sampled": 0.015, "pass@8": 0.03})


def test_too_few_evaluations_are_refused() -> None:
    config = load_config(ROOT / CONFIGS["dense"])
    evals = [line(step, 0.5, k=k) for step in (0, 5, 10) for k in (None, 8)]
    with pytest.raises(ValueError, match=r"evaluated at \[5, 10\], 3 evaluations are averaged"):
        measures(evals, config)
