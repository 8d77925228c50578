"""Curves in TensorBoard: one tag is one measurement, over updates. Read back with TensorBoard's own reader."""

import dataclasses
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.record.run_view import read_run
from cluster.watch.tensorboard import TensorboardWatcher
from tests.unit.cluster.test_recorder import evaluation, finished


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(path / "tensorboard"))
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(e.step, round(e.value, 4)) for e in reader.Scalars(tag)] for tag in tags}


def test_evaluations_of_another_limit_or_kind_are_another_curve(tmp_path: Path) -> None:
    watcher = TensorboardWatcher(tmp_path)
    for step in (0, 10):
        for report in (evaluation(step, 0.25, 16), evaluation(step, 0.5, 64), evaluation(step, 0.75, 16, k=4)):
            watcher.watch("eval", dataclasses.asdict(report))
    watcher.close()
    found = curves(tmp_path)
    assert found["eval_greedy_16_tokens/accuracy"] == [(0, 0.25), (10, 0.25)]
    assert found["eval_greedy_64_tokens/accuracy"] == [(0, 0.5), (10, 0.5)]
    assert found["eval_pass_at_4_16_tokens/pass_at_k"] == [(0, 0.75), (10, 0.75)]
    assert not [tag for tag in found if tag.endswith(("/step", "/k", "/max_new_tokens"))]


async def test_numbers_of_an_update_lie_in_sections_by_what_they_are_of(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    watcher = TensorboardWatcher(tmp_path)
    for line in read_run(path).metrics:
        watcher.watch("metrics", line)
    watcher.close()
    found = curves(tmp_path)
    assert {"reward/accuracy", "perf/step_s", "memory/memory_episodes", "stability/mismatch_mean"} <= found.keys()
    assert all([step for step, _ in points] == [1, 2] for points in found.values())
    sections = [tag.split("/")[0] for tag in found]
    assert max(sections.count(section) for section in set(sections)) < len(found) / 2, "no section holds most of them"
