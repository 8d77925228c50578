"""What memory changes, as people see it: live line, status, report; and runs of 57c9e8c, which did not record it."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.report_pictures import pictures_of
from cluster.record.memory_effect import effect_text, memory_effect, short_text
from cluster.record.run_view import RunView
from cluster.watch.alarms.alarms import AlarmSettings, alarms
from cluster.watch.console import step_text
from tests.harness import make_config

HISTORIES = Path(__file__).parents[2] / "data" / "histories"


def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HISTORIES / f"{name}.metrics.jsonl").read_text("utf-8").splitlines()]


def line(
    groups: int, changed: float, share: float, signal_groups: int = 0, signal_share: float = 0.0
) -> dict[str, Any]:
    spreads = {"exploit_std": 0.2, "explore_std": 0.4, "bonus_std": 0.1}
    return spreads | {
        "num_groups": 8,
        "bonus_groups": groups,
        "bonus_signal_groups": signal_groups,
        "bonus_changed_share": changed,
        "bonus_advantage_share": share,
        "bonus_signal_share": signal_share,
    }


def test_a_window_weighs_updates_by_the_groups_that_memory_may_act_on() -> None:
    effect = memory_effect([line(6, 0.5, 0.2, 2, 0.1), line(2, 1.0, 0.6, 0, 0.0), line(0, 0.0, 0.0)])
    assert effect is not None
    assert (effect.updates, effect.bonus_groups, effect.bonus_signal_groups) == (3, 8, 2)
    assert effect.bonus_changed_share == pytest.approx(5 / 8)
    assert effect.bonus_advantage_share == pytest.approx((6 * 0.2 + 2 * 0.6) / 8)
    assert effect.bonus_signal_share == pytest.approx(0.1)
    assert effect.exploit_std == pytest.approx(0.2)
    told = effect_text(effect)
    assert told.startswith(
        "in 3 updates memory might act on 8 of 24 groups (16 left out: too few answers that memory.where pays"
    )
    assert "changed the advantages of 62% of those it might act on; 30.0% of their squared advantage" in told


def test_where_memory_might_act_on_all_no_others_are_told_of() -> None:
    told = effect_text(memory_effect([line(8, 1.0, 0.2)] * 2))
    assert told.startswith(
        "in 2 updates memory might act on 16 of 16 groups and changed the advantages of 100% of those"
    )


def test_what_was_not_there_is_said_and_not_made_up() -> None:
    assert memory_effect([{"bonus": 0.5}]) is None
    assert "was not recorded" in effect_text(memory_effect([{"bonus": 0.5}]))
    assert "no group to act on among the 16 of 2 updates: too few answers that memory.where pays" in effect_text(
        memory_effect([line(0, 0.0, 0.0)] * 2)
    )
    assert short_text({"bonus": 0.5}) == "-"
    assert short_text(line(8, 0.75, 0.12)) == "changed 6 of 8 groups, 12.0% of advantage"
    assert short_text(line(4, 0.75, 0.12)) == "pays in 4 of 8 groups, changed 3 of 4 groups, 12.0% of advantage"


def test_the_live_line_shows_what_memory_changes() -> None:
    base = make_line()
    assert "memory 40 episodes (changed 6 of 8 groups, 12.0% of advantage)" in step_text(base | line(8, 0.75, 0.12), 30)
    assert "memory 40 episodes (-)" in step_text(base, 30)
    assert "memory 40" not in step_text(base | {"memory_version": -1}, 30), "where it is off"


def make_line() -> dict[str, Any]:
    zeros = dict.fromkeys(["accuracy", "reward", "intrinsic_exploit", "intrinsic_explore", "lag_mean", "step_s"], 0.0)
    waits = dict.fromkeys(["wait_rollouts_s", "wait_memory_s", "update_s", "completion_tokens_mean"], 0.0)
    return zeros | waits | {"step": 1, "memory_version": 5, "memory_episodes": 40}


@pytest.mark.parametrize("with_effect", [True, False])
def test_the_report_draws_runs_with_and_without_it(tmp_path: Path, with_effect: bool) -> None:
    names = [
        "lag_mean",
        "lag_max",
        "mismatch_mean",
        "mismatch_p99",
        "publish_s",
        "memory_queries",
        "entropy",
        "grad_norm",
    ]
    base = make_line() | dict.fromkeys([*names, "truncated_share"], 0.0) | {"reward_parts": {"correctness": 0.5}}
    metrics = [base | {"step": i} | (line(8, 0.5, 0.1) if with_effect else {}) for i in (1, 2)]
    run = RunView(tmp_path, make_config(tmp_path), {}, metrics, [])
    titles = [picture.title for picture in pictures_of(run)]
    assert "What memory changes" in titles
    assert "Intrinsic share" not in titles


@pytest.mark.parametrize(
    "name", ["memr_scaled_scratchpad", "memr_quickstart", "memr_low_entropy", "plain_grpo", "scripted"]
)
def test_recorded_runs_hear_nothing_of_memory_at_any_update(name: str) -> None:
    """memr_scaled_scratchpad: 99 updates of a 0.3M model on a scratchpad task, profile memr, lag 0; from .02 to .32."""
    metrics = recorded(name)
    for step in range(1, len(metrics) + 1):
        found = [alarm.name for alarm in alarms(metrics[:step], [], AlarmSettings())]
        assert not [alarm for alarm in found if alarm.startswith("memory_")]


def test_the_recorded_run_would_be_heard_if_its_bonus_were_a_constant() -> None:
    metrics = [entry | {"bonus_changed_share": 0.06} for entry in recorded("memr_scaled_scratchpad")]
    assert "memory_silent" in [alarm.name for alarm in alarms(metrics[:10], [], AlarmSettings())]


def test_a_memory_that_pays_no_bonus_is_told_so_and_not_as_one_that_found_nothing() -> None:
    nothing = memory_effect([line(0, 0.0, 0.0)] * 2)
    assert "pays no bonus" in effect_text(nothing, pays=False)
    assert "another run with --set memory.profile=memr --set run.name=NAME" in effect_text(nothing, pays=False)


def test_an_update_without_a_group_to_act_on_is_no_memory_that_is_off() -> None:
    """Profile memr on a hard task: groups of wrong answers alone have nothing to pay."""
    assert short_text(line(0, 0.0, 0.0)) == "no bonus in any of 8 groups"
