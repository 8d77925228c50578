"""Stage 2: what a run is started with loads, and its last versions' evaluations become the three measures."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.arms_plan import ANNEALED, ARMS, Cell
from benchmarks.packaged_cell import CONFIGS, EVERY_UPDATES, PROBLEMS, evaluate_last, measures, settings_of
from cluster.commands.evaluate import EvalRequest
from cluster.config.run_config import load_config
from tasks.load import load_task

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("task", sorted(CONFIGS))
@pytest.mark.parametrize("arm", [*ARMS, f"scaled{ANNEALED}"])
def test_every_run_is_one_that_loads_with_as_many_held_out_problems_as_it_asks_for(task: str, arm: str) -> None:
    settings = settings_of(Cell(3, task, arm))
    config = load_config(ROOT / CONFIGS[task], [f"{name}={value}" for name, value in settings.items()])
    assert (config.run.seed, config.task.seed, config.learner.max_policy_lag) == (3, 3, 0)
    assert config.memory.enabled == (arm != "off")
    assert config.memory.anneal_steps == (config.learner.num_updates if arm.endswith(ANNEALED) else None)
    assert config.cluster.adapters_on_disk > 2 * EVERY_UPDATES, "the versions that are evaluated when the run has ended"
    assert len(load_task(config.task).held_out(max(PROBLEMS[task]))) == max(PROBLEMS[task])


def test_three_versions_are_evaluated_once_whatever_cuts_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []

    def evaluated(run: str, request: EvalRequest, *, policy_version: int) -> dict[str, Any]:
        version, problems, samples = policy_version, request.problems, request.samples
        asked.append((version, problems, samples))
        if asked.count((version, problems, samples)) == 1 and version == 35:
            raise KeyboardInterrupt
        share = version / (100 if samples == 1 else 1000)
        k = samples if samples > 1 else None
        return {"policy_version": version, "k": k, "accuracy": share, "pass_at_k": k and 2 * share}

    monkeypatch.setattr("cluster.commands.evaluate.evaluate_target", evaluated)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate_last(tmp_path, "sparse", 40)
    reports = evaluate_last(tmp_path, "sparse", 40)
    greedy, sampled = (1000, 1), (250, 8)
    expected = [(30, *greedy), (30, *sampled), (35, *greedy), (35, *greedy), (35, *sampled), (35, *sampled)]
    assert asked == [*expected, (40, *greedy), (40, *sampled)]
    assert measures(reports) == pytest.approx({"greedy": 0.35, "sampled": 0.035, "pass@8": 0.07})
