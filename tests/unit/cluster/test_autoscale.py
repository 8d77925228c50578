"""How many workers a run should have, from recorded waits."""

import itertools
import random

import pytest

from cluster.config.cluster import AutoscaleSettings
from cluster.flow.scaling_policy import Waits, bottleneck, wanted_workers

SETTINGS = AutoscaleSettings(enabled=True, min_workers=1, max_workers=8)


def trace(idle: float, ready: float = 0.0, updates: int = 20, memory: float = 0.0) -> list[Waits]:
    return [Waits(i + 1, 10.0, 10 * idle, 10 * memory, round(24 * ready), 24) for i in range(updates)]


@pytest.mark.parametrize(
    ("now", "history", "wanted"),
    [
        (2, trace(0.5), 4),  # half the time idle: twice the workers
        (4, trace(0.4), 7),  # 4 / 0.6
        (2, trace(0.9), 4),  # never more than twofold at once
        (8, trace(0.9), 8),  # the limit
        (4, trace(0.2), 4),  # between the two thresholds
        (4, trace(0.0, ready=0.5), 3),  # finished groups lie around: one may go
        (4, trace(0.0, ready=0.1), 4),  # busy, but nothing lies around
        (1, trace(0.0, ready=0.9), 1),  # the limit
        (4, trace(0.9, updates=3), 4),  # too little history
        (12, trace(0.1), 8),  # outside the limits: clamped at once
    ],
)
def test_wanted_workers(now: int, history: list[Waits], wanted: int) -> None:
    assert wanted_workers(history, now, last_change_step=0, settings=SETTINGS).workers == wanted


def test_nothing_changes_twice_within_the_cool_down() -> None:
    assert wanted_workers(trace(0.9), 2, last_change_step=15, settings=SETTINGS).workers == 2
    assert wanted_workers(trace(0.9), 2, last_change_step=10, settings=SETTINGS).workers == 4


def test_waits_from_before_the_last_change_say_nothing_of_now() -> None:
    quick = SETTINGS.model_copy(update={"cooldown_updates": 1})
    history = [*trace(0.6, updates=10), *(Waits(11 + i, 10.0, 0.0, 0.0, 0, 24) for i in range(3))]
    assert wanted_workers(history, 2, last_change_step=10, settings=quick).workers == 2


def test_a_run_whose_work_needs_four_workers_settles_there_and_does_not_flap() -> None:
    """The learner is idle 1 - n/4 of its time with n workers; waits are noisy by half."""
    noise, workers, changed = random.Random(0), 1, 0
    history: list[Waits] = []
    counts = []
    for step in range(1, 300):
        idle = max(0.0, 1 - workers / 4.0)
        ready = min(1.0, max(0.0, (workers / 4.0 - 0.8) / 2))
        history.append(Waits(step, 10.0, 10 * idle * noise.uniform(0.5, 1.5), 0.0, round(24 * ready), 24))
        decision = wanted_workers(history, workers, changed, SETTINGS)
        if decision.workers != workers:
            workers, changed = decision.workers, step
        counts.append(workers)
    assert set(counts[100:]) <= {3, 4}
    assert sum(a != b for a, b in itertools.pairwise(counts[100:])) <= 2


@pytest.mark.parametrize(
    ("history", "side"),
    [
        (trace(0.6), "rollout workers: the learner waited for rollouts 60%"),
        (trace(0.1, memory=0.4), "memory: the learner waited for intrinsic rewards 40%"),
        (trace(0.01), "the learner"),
        ([], "the learner"),
    ],
)
def test_the_bottleneck_has_a_name(history: list[Waits], side: str) -> None:
    assert bottleneck(history).startswith(side)
