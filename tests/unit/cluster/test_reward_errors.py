"""What fails in scoring is a share that a person sees: in metrics, as an alarm, in status, summary and report."""

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.commands.summary import show_reward_errors
from cluster.watch.alarms.alarms import Action, AlarmSettings, alarms
from cluster.watch.alarms.reward_errors import error_shares, errors_text
from tests.unit.cluster.test_alarms import run

Line = dict[str, Any]


def lines(share: float, name: str = "my_reward.py:brief", updates: int = 20) -> list[Line]:
    return run(updates, rollouts_judged=64, reward_errors={name: share} if share else {})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_reward.py:brief", "reward part my_reward.py:brief failed over 40.0% of the rollouts, and counted 0 there"),
        ("scorer", "the scorer failed over 40.0% of the rollouts, which count as wrong"),
    ],
)
def test_a_large_share_of_failures_warns_and_says_what_they_count(name: str, said: str) -> None:
    [alarm] = [a for a in alarms(lines(0.4, name), [], AlarmSettings()) if a.name == "reward_errors"]
    assert alarm.action is Action.WARN
    assert said in alarm.headline
    assert "`memr check-task`" in alarm.headline


def test_a_small_share_a_short_run_and_older_runs_say_nothing() -> None:
    for metrics in (lines(0.1), lines(0.9, updates=9), run(20), []):
        assert "reward_errors" not in [a.name for a in alarms(metrics, [], AlarmSettings())]


def test_the_alarm_can_be_turned_off_and_looks_at_the_window_alone() -> None:
    assert "reward_errors" not in [a.name for a in alarms(lines(0.4), [], AlarmSettings(reward_errors="off"))]
    mended = [*lines(0.9, updates=10), *lines(0.0, updates=10)]
    assert "reward_errors" not in [a.name for a in alarms(mended, [], AlarmSettings())]


def test_shares_weigh_updates_by_their_rollouts() -> None:
    few: Line = {"rollouts_judged": 10, "reward_errors": {"a": 1.0}}
    many: Line = {"rollouts_judged": 90, "reward_errors": {"scorer": 0.5}}
    assert error_shares([few, many, {"step": 3}]) == {"a": 0.1, "scorer": 0.45}
    assert errors_text({}) == ""


def test_status_and_summary_show_them_and_are_silent_without() -> None:
    told = io.StringIO()
    show_reward_errors(Console(file=told, width=200), lines(0.25, updates=4))
    assert "failed over 25.0% of the rollouts, and counted 0 there (of 4 updates)" in told.getvalue()
    silent = io.StringIO()
    show_reward_errors(Console(file=silent), [*lines(0.0), {"step": 21}])
    assert silent.getvalue() == ""
