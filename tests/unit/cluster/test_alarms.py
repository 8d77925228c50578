"""Alarms: each fires on the failure it is named after, and healthy runs hear nothing above a warning."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cluster.config.alarms import AlarmAction
from cluster.record.memory_effect import effect_text, memory_effect
from cluster.watch.alarms.alarms import MONITORS, Action, Alarm, AlarmSettings, alarms, newly_raised, preflight
from tasks.config import REWARD_NAMES

SETTINGS = AlarmSettings()
HISTORIES = Path(__file__).parents[2] / "data" / "histories"
Line = dict[str, Any]
Curve = Callable[[float], Any]


def run(updates: int = 60, **curves: Any) -> list[Line]:
    """A healthy run of so many updates, with some fields replaced: numbers, or functions of progress in 0 to 1."""
    fields: dict[str, Any] = {
        "accuracy": lambda t: 0.1 + 0.6 * t,
        "task_reward": lambda t: 0.1 + 0.6 * t,
        "bonus": 0.3,
        "entropy": lambda t: 1.4 - 1.1 * t,
        "completion_tokens_mean": lambda t: 100 - 20 * t,
        "truncated_share": lambda t: 0.9 - 0.8 * t,
        "zero_variance_share": 0.5,
        "num_groups": 8,
        "num_rollouts": 64,
        "bonus_groups": 7,
        "bonus_signal_groups": 4,
        "exploit_std": 0.3,
        "explore_std": 0.2,
        "bonus_std": 0.1,
        "bonus_changed_share": lambda t: 0.6 + 0.4 * t,
        "bonus_advantage_share": lambda t: 0.4 - 0.3 * t,
        "bonus_signal_share": lambda t: 0.3 - 0.2 * t,
    } | curves
    return [_line(step, (step - 1) / max(1, updates - 1), fields) for step in range(1, updates + 1)]


def _line(step: int, progress: float, fields: Mapping[str, Any]) -> Line:
    line: Line = {"step": step, "ledger": {"trained": 8 * step, "dropped": 0, "failed": 0}}
    return line | {name: curve(progress) if callable(curve) else curve for name, curve in fields.items()}


def form(curve: Curve) -> Curve:
    """`reward_parts` with this much for the form of an answer, half of it strict and half soft."""
    return lambda t: {"correctness": 0.1, "format": curve(t) / 2, "soft_format": curve(t) / 2}


def evaluation(step: int, accuracy: float, **changed: Any) -> Line:
    return {"step": step, "n": 400, "accuracy": accuracy, "invalid": 0, "max_new_tokens": 16, "k": None} | changed


def raised_by(metrics: Sequence[Line], evals: Sequence[Line] = (), /, **changed: Any) -> dict[str, Alarm]:
    """changed: actions, and limits, which are constants of the class."""
    return {alarm.name: alarm for alarm in alarms(metrics, evals, AlarmSettings().model_copy(update=changed))}


def until(share: float, before: float, after: float) -> Curve:
    return lambda t: before if t < share else after


FLAT: dict[str, Any] = {"accuracy": 0.1, "task_reward": 0.1}

FAILURES: list[tuple[str, Action, list[Line], str]] = [
    ("truncated", Action.WARN, run(truncated_share=0.97), "actors.max_new_tokens"),
    ("zero_variance", Action.WARN, run(zero_variance_share=1.0), "actors.rollouts_per_group"),
    ("reward_mode", Action.WARN, run(**FLAT, reward_parts=form(lambda t: t)), "task.rewards"),
    ("length_shrinks", Action.WARN, run(**FLAT, completion_tokens_mean=lambda t: 200 - 190 * t), "learner.kl_weight"),
    ("length_runs_away", Action.WARN, run(**FLAT, completion_tokens_mean=lambda t: 50 + 400 * t), "learner.overlong"),
    ("entropy", Action.PAUSE, run(entropy=until(0.5, 1.4, 0.001)), "learner.clip_high"),
    ("memory_silent", Action.WARN, run(bonus_changed_share=0.06), "memory.mix = 'scaled'"),
    ("memory_dominant", Action.WARN, run(bonus_signal_share=0.6), "memory.cap_share"),
]


@pytest.mark.parametrize(("name", "action", "metrics", "knob"), FAILURES, ids=[case[0] for case in FAILURES])
def test_each_failure_is_noticed_alone_and_says_what_to_turn(
    name: str, action: Action, metrics: list[Line], knob: str
) -> None:
    found = raised_by(metrics)
    assert list(found) == [name]
    assert found[name].action is action
    assert knob in found[name].headline


def test_a_healthy_run_hears_nothing_at_any_update() -> None:
    metrics = run(200)
    evals = [evaluation(step, 0.1 + 0.003 * step) for step in (0, 50, 100, 150, 200)]
    for step in range(len(metrics) + 1):
        assert alarms(metrics[:step], [e for e in evals if e["step"] <= step], SETTINGS) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_pauses_nothing(seed: int) -> None:
    rng = random.Random(seed)

    def noisy(value: float, spread: float) -> float:
        return max(0.0, value + rng.gauss(0, spread))

    metrics = run(
        200,
        accuracy=lambda t: min(1.0, noisy(0.1 + 0.6 * t, 0.1)),
        completion_tokens_mean=lambda t: noisy(60 - 30 * t, 10),
        entropy=lambda t: noisy(1.4 - 1.3 * t, 0.1),
        zero_variance_share=lambda _t: min(1.0, noisy(0.5, 0.2)),
        reward_parts=form(lambda t: noisy(0.2 + 0.6 * t, 0.05)),
    )
    for step in range(0, 201, 5):
        assert [a for a in alarms(metrics[:step], [], SETTINGS) if a.action is not Action.WARN] == []


def recorded(name: str, kind: str) -> list[Line]:
    return [json.loads(line) for line in (HISTORIES / f"{name}.{kind}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["memr_quickstart", "memr_low_entropy", "plain_grpo", "scripted"])
def test_recorded_healthy_runs_hear_nothing_at_any_update(name: str) -> None:
    metrics, evals = recorded(name, "metrics"), recorded(name, "eval")
    assert evals[-1]["accuracy"] > evals[0]["accuracy"] + 0.3
    for step in range(1, len(metrics) + 1):
        assert alarms(metrics[:step], [e for e in evals if e["step"] <= step], SETTINGS) == []


@pytest.mark.parametrize("name", ["memr_quickstart", "memr_low_entropy", "plain_grpo", "scripted"])
def test_first_batches_of_recorded_healthy_runs_pass_the_preflight(name: str) -> None:
    first = recorded(name, "metrics")[0]
    truncated, zero = first["truncated_share"], first["zero_variance_share"]
    assert preflight(truncated_share=truncated, invalid_share=0, zero_variance_share=zero, settings=SETTINGS) == []


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ((0.89, 0.0, 0.625), []),
        ((0.97, 0.5, 0.98), []),  # at the limits, not above them
        ((0.98, 0.0, 0.0), ["preflight_truncated"]),
        ((0.0, 0.51, 0.0), ["preflight_invalid"]),
        ((1.0, 1.0, 1.0), ["preflight_truncated", "preflight_invalid", "preflight_zero_variance"]),
    ],
)
def test_preflight(shares: tuple[float, float, float], names: list[str]) -> None:
    truncated, invalid, zero = shares
    found = preflight(truncated_share=truncated, invalid_share=invalid, zero_variance_share=zero, settings=SETTINGS)
    assert [alarm.name for alarm in found] == names


def test_preflight_names_the_share_the_limit_and_the_knob() -> None:
    found = preflight(truncated_share=1.0, invalid_share=0.75, zero_variance_share=1.0, settings=SETTINGS)
    truncated, invalid, zero = found
    assert "100%" in truncated.headline
    assert "97%" in truncated.headline
    assert "actors.max_new_tokens" in truncated.headline
    assert "75%" in invalid.headline
    assert "memr check-task" in invalid.headline
    assert "difficulty" in zero.headline
    assert "actors.rollouts_per_group" in zero.headline
    assert [alarm.action for alarm in found] == [Action.PAUSE, Action.PAUSE, Action.WARN]


@pytest.mark.parametrize("updates", [0, 1, 9])
def test_less_than_a_window_is_too_little_to_judge(updates: int) -> None:
    dead = run(updates, truncated_share=1.0, zero_variance_share=1.0, entropy=1e-9, completion_tokens_mean=0.0)
    assert alarms(dead, [], SETTINGS) == []


def test_truncation_is_judged_by_the_last_window_only() -> None:
    assert "truncated" not in raised_by(run(truncated_share=until(0.5, 1.0, 0.1)))
    assert "truncated" not in raised_by(run(truncated_share=0.95))
    assert "truncated" in raised_by(run(10, truncated_share=1.0))


def test_zero_variance_of_a_solved_task_asks_for_harder_problems() -> None:
    assert "harder problems" in raised_by(run(zero_variance_share=1.0, accuracy=0.99))["zero_variance"].headline


def lost(metrics: list[Line], per_update: int) -> list[Line]:
    """The same run with so many problems dropped between two updates."""
    for line in metrics:
        line["ledger"]["dropped"] = per_update * line["step"]
    return metrics


def test_dropped_problems_count_as_invalid_rollouts() -> None:
    assert raised_by(lost(run(), 2)) == {}  # 2 of 10, at the limit
    assert "27%" in raised_by(lost(run(), 3))["invalid"].headline
    found = raised_by(lost(run(), 160))
    assert {name: alarm.action for name, alarm in found.items()} == {
        "invalid": Action.WARN,
        "invalid_nearly_all": Action.PAUSE,
    }


def test_problems_lost_before_the_window_no_longer_count() -> None:
    metrics = run()
    for line in metrics:
        line["ledger"]["failed"] = 2000 if line["step"] > 3 else 0
    assert "invalid_nearly_all" in raised_by(metrics[:10])
    assert raised_by(metrics) == {}


def test_groups_that_shrink_count_as_invalid_rollouts() -> None:
    assert "50%" in raised_by(run(num_rollouts=until(0.5, 64, 32)))["invalid"].headline


def test_an_evaluation_that_cannot_judge_is_invalid_but_does_not_pause() -> None:
    found = raised_by(run(), [evaluation(0, 0.1), evaluation(10, 0.0, invalid=400)])
    assert {name: alarm.action for name, alarm in found.items()} == {"invalid": Action.WARN}
    assert raised_by(run(), [evaluation(10, 0.4, invalid=300, k=4)]) == {}  # 300 of 1600 answers


def test_form_learned_first_is_given_time() -> None:
    locked = run(49, **FLAT, reward_parts=form(lambda t: t))
    assert "reward_mode" not in raised_by(locked)
    assert "reward_mode" in raised_by(locked, reward_mode_after_updates=49)


def test_form_that_rises_together_with_accuracy_is_no_collapse() -> None:
    assert "reward_mode" not in raised_by(run(reward_parts=form(lambda t: t)))


def test_the_parts_that_count_as_form_are_named_as_the_task_names_them() -> None:
    for name in set(REWARD_NAMES) - {"correctness", "cosine_length"}:
        metrics = run(**FLAT)
        for line in metrics:
            line["reward_parts"] = {"correctness": 0.1, name: line["step"] / 60}
        assert "reward_mode" in raised_by(metrics), name


def test_a_jump_of_the_format_is_seen_when_it_happens_and_clears() -> None:
    metrics = run(100, reward_parts=form(until(0.5, 0.1, 0.8)))
    seen = [step for step in range(1, 101) if "format_transition" in raised_by(metrics[:step])]
    assert seen == [52, 53]  # it jumps at 51; two of the last three updates must show it
    assert raised_by(metrics[:52])["format_transition"].action is Action.WARN


def test_one_odd_update_is_no_transition() -> None:
    metrics = run(60, reward_parts=form(lambda t: 0.9 if 0.5 < t < 0.515 else 0.1))
    assert [line["reward_parts"]["format"] for line in metrics].count(0.45) == 1
    assert not any("format_transition" in raised_by(metrics[:step]) for step in range(1, 61))


def test_a_fall_of_the_format_is_a_transition_too() -> None:
    metrics = run(100, reward_parts=form(until(0.5, 0.8, 0.1)))
    assert "format_transition" in raised_by(metrics[:53])


def test_a_steady_rise_of_the_format_is_no_transition() -> None:
    metrics = run(60, reward_parts=form(lambda t: 2 * t))
    assert not any("format_transition" in raised_by(metrics[:step]) for step in range(1, 61))


def test_short_and_long_answers_that_pay_are_no_collapse() -> None:
    assert raised_by(run(completion_tokens_mean=lambda t: 200 - 198.5 * t)) == {}
    assert raised_by(run(completion_tokens_mean=lambda t: 50 + 400 * t)) == {}
    assert raised_by(run(accuracy=0.95, completion_tokens_mean=lambda t: 200 - 190 * t)) == {}


def test_answers_that_vanish_pause() -> None:
    found = raised_by(run(**FLAT, completion_tokens_mean=until(0.5, 100.0, 1.0)))
    assert {name: alarm.action for name, alarm in found.items()} == {
        "length_shrinks": Action.WARN,
        "length_vanishes": Action.PAUSE,
    }


def test_a_collapse_after_good_learning_is_a_collapse() -> None:
    learned, lost_again = run(70), run(30, accuracy=0.2, completion_tokens_mean=1.0)
    assert "length_vanishes" in raised_by(learned + lost_again)


def test_a_task_with_short_answers_from_the_start_has_not_collapsed() -> None:
    assert raised_by(run(**FLAT, completion_tokens_mean=1.5)) == {}


def test_updates_without_rollouts_report_zeros_that_mean_nothing() -> None:
    metrics = run()
    empty = {"num_rollouts": 0, "num_groups": 0, "completion_tokens_mean": 0.0, "entropy": 0.0, "accuracy": 0.0}
    metrics += [_line(61 + i, 1.0, {**metrics[-1], **empty}) for i in range(20)]
    assert raised_by(metrics) == {}


def test_entropy_must_fall_below_both_limits() -> None:
    assert "entropy" not in raised_by(run(entropy=until(0.5, 1.4, 0.02)))  # small share of the start, above the floor
    assert "entropy" not in raised_by(run(entropy=until(0.5, 0.012, 0.005)))  # below the floor, as it began
    assert "entropy" in raised_by(run(entropy=until(0.5, 1.4, 0.005)))


def test_a_solved_task_may_be_sure_of_itself() -> None:
    assert "entropy" not in raised_by(run(entropy=until(0.5, 1.4, 0.001), accuracy=lambda t: 0.1 + 0.88 * t))


def test_entropy_that_was_not_measured_is_no_collapse() -> None:
    assert raised_by(run(entropy=0.0)) == {}
    assert raised_by(run(entropy=until(0.5, 1.4, 0.0))) == {}


HACKED = [evaluation(0, 0.3), evaluation(30, 0.6), evaluation(60, 0.4)]


def test_training_up_and_held_out_down_warns_with_both_numbers() -> None:
    alarm = raised_by(run(), HACKED)["train_up_eval_down"]
    assert alarm.action is Action.WARN
    assert "from 0.600 to 0.400" in alarm.headline
    assert "steps 30 and 60" in alarm.headline


@pytest.mark.parametrize(
    ("metrics", "evals"),
    [
        (run(), HACKED[1:]),  # two evaluations
        (run(), [*HACKED[:2], evaluation(60, 0.57)]),  # a small fall
        (run(), [line | {"n": 20} for line in HACKED]),  # 0.6 and 0.4 of 20: chance
        (run(), [line | {"k": 4} for line in HACKED]),  # sampled, not greedy
        (run(), [*HACKED[:2], evaluation(60, 0.4, max_new_tokens=64)]),  # another limit
        (run(task_reward=0.4), HACKED),  # training does not rise
        (run(5), HACKED),  # too little training to compare
        (run(), [*HACKED, evaluation(70, 0.62)]),  # recovered
    ],
)
def test_held_out_accuracy_is_compared_only_where_that_is_fair(metrics: list[Line], evals: list[Line]) -> None:
    assert "train_up_eval_down" not in raised_by(metrics, evals)


def test_a_fall_from_before_training_on_is_seen() -> None:
    assert "train_up_eval_down" in raised_by(run(), [evaluation(0, 0.6), evaluation(30, 0.5), evaluation(60, 0.3)])


def test_a_memory_that_may_not_act_is_not_silent() -> None:
    """Off, weight 0, annealed away, in its warm-up, or nothing but groups that are all right."""
    assert raised_by(run(bonus_groups=0, bonus_signal_groups=0, bonus_changed_share=0.0)) == {}
    few = run(bonus_groups=1, bonus_signal_groups=1, bonus_changed_share=0.0, bonus_signal_share=1.0)
    assert raised_by(few) == {}, "ten groups in a window are chance"
    assert list(raised_by(few, memory_silent_groups=10, memory_dominant_groups=10)) == [
        "memory_silent",
        "memory_dominant",
    ]


def first_raised(name: str, metrics: Sequence[Line]) -> int:
    return next(step for step in range(1, len(metrics) + 1) if name in raised_by(metrics[:step]))


def test_a_memory_falls_silent_or_takes_over_in_a_window_not_in_an_update() -> None:
    """From update 49 on: below a tenth with the ninth of the window, above a half with the sixth."""
    assert first_raised("memory_silent", run(60, bonus_changed_share=until(0.8, 0.9, 0.0))) == 57
    assert first_raised("memory_dominant", run(60, bonus_signal_share=until(0.8, 0.1, 0.9))) == 54


def test_memory_may_dominate_where_the_task_says_nothing() -> None:
    """All wrong answers: the whole squared advantage is memory's, which is what it is for."""
    assert raised_by(run(bonus_signal_groups=0, bonus_signal_share=0.0, bonus_advantage_share=1.0)) == {}


def test_updates_weigh_by_their_groups() -> None:
    """Nine updates of one group that changed, one of 60 that did not: 9 of 69."""
    metrics = run(10, bonus_groups=1, bonus_changed_share=1.0)
    metrics[-1] |= {"bonus_groups": 60, "bonus_changed_share": 0.0}
    assert raised_by(metrics) == {}
    assert "13% of the 69 groups" in raised_by(metrics, memory_silent_below=0.14)["memory_silent"].headline


def test_runs_of_57c9e8c_did_not_record_what_memory_changes() -> None:
    old = [{k: v for k, v in line.items() if not k.startswith("bonus_")} for line in run(bonus_changed_share=0.0)]
    assert raised_by(old) == {}
    assert "was not recorded" in effect_text(memory_effect(old))


def test_the_alarm_that_compared_means_reads_as_the_one_that_compares_what_is_moved() -> None:
    old = {"intrinsic_share": "pause", "intrinsic_share_above": 0.9, "intrinsic_share_after_updates": 10}
    assert AlarmSettings.model_validate(old) == AlarmSettings(memory_dominant="pause")


def test_values_that_are_not_finite_or_missing_break_nothing_and_hide_nothing() -> None:
    metrics = run(entropy=until(0.5, 1.4, 0.001))
    metrics[-1]["entropy"] = float("nan")
    metrics[-2] = {"step": 59}
    assert list(raised_by(metrics)) == ["entropy"]


def test_every_monitor_has_its_action_in_the_settings_under_its_own_name() -> None:
    for monitor in MONITORS:
        assert getattr(SETTINGS, monitor.__name__) in get_args(AlarmAction)


@pytest.mark.parametrize("action", ["warn", "pause", "roll_back"])
@pytest.mark.parametrize(("name", "_default", "metrics", "_knob"), FAILURES, ids=[case[0] for case in FAILURES])
def test_the_users_action_is_taken(action: str, name: str, _default: Action, metrics: list[Line], _knob: str) -> None:
    assert raised_by(metrics, (), **{name: action})[name].action == action
    assert raised_by(metrics, (), **{name: "off"}) == {}


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValidationError):
        AlarmSettings.model_validate({"entropy": "panic"})


def test_an_alarm_is_new_once_until_it_clears() -> None:
    alarm, other = Alarm("entropy", Action.PAUSE, "low"), Alarm("truncated", Action.WARN, "long")
    assert newly_raised([], [alarm]) == [alarm]
    assert newly_raised({"entropy"}, [alarm, other]) == [other]
    assert newly_raised({"truncated"}, [alarm]) == [alarm]


def test_alarms_load_without_torch_and_ray() -> None:
    code = "import sys, cluster.watch.alarms.alarms; sys.exit(bool({'torch', 'ray', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
