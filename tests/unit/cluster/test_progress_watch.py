"""When a run counts as hung: by what changes, not by what the clock on the wall says."""

from typing import Any

import pytest

from cluster.config.supervision import SupervisionSettings
from cluster.recovery.progress import ProgressWatch

SETTINGS = SupervisionSettings(start_s=100.0, heartbeat_s=10.0, progress_s=50.0)


def status(beat: float, progress: int, phase: str = "waiting for memory") -> dict[str, Any]:
    return {"time_s": beat, "progress": [progress, 0, 0, 0], "phase": phase}


def test_a_run_may_load_its_models_for_start_s() -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    assert watch.look(None, 100.0) is None
    hang = watch.look(None, 101.0)
    assert hang is not None
    assert "supervision.start_s = 100 s" in hang.headline
    assert not hang.alive


def test_signs_of_life_without_progress_are_a_hang_in_which_the_controller_can_be_asked() -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    found = [watch.look(status(beat=t, progress=1), t) for t in range(0, 60, 5)]
    assert [hang is not None for hang in found] == [False] * 11 + [True]
    assert found[-1] is not None
    assert found[-1].alive
    assert found[-1].headline == "no progress for 55 s while waiting for memory (supervision.progress_s = 50)"


def test_a_silent_controller_is_a_hang_in_which_nobody_can_be_asked() -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    assert watch.look(status(beat=1.0, progress=1), 1.0) is None
    assert watch.look(status(beat=1.0, progress=1), 11.0) is None
    hang = watch.look(status(beat=1.0, progress=1), 11.5)
    assert hang is not None
    assert not hang.alive


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_a_clock_that_jumps_raises_no_alarm(jump_s: float) -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    for t in range(1, 200):
        wall = t + (jump_s if t > 50 else 0.0)
        assert watch.look(status(beat=wall, progress=t // 10), float(t)) is None


def test_any_counter_that_moves_is_progress() -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    for t in range(1, 400, 5):
        moving = {"time_s": float(t), "progress": [7, 0, t // 40, 0], "phase": "updating"}
        assert watch.look(moving, float(t)) is None


def test_a_watcher_that_was_itself_stopped_for_an_hour_looks_again_before_it_judges() -> None:
    watch = ProgressWatch(SETTINGS, now_s=0.0)
    assert watch.look(status(beat=1.0, progress=1), 1.0) is None
    assert watch.look(status(beat=3601.0, progress=99), 3601.0) is None
