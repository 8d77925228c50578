"""One function per failure of learning: a run's history in, an alarm or None out. Pure.

metrics: lines of metrics.jsonl, in order, of the whole run. evals: lines of eval.jsonl. Monitors compare a window of
updates now with one at the start of the run, and say nothing before there are enough updates for both.
Collapses after Memory-R+ (arXiv 2504.02273); the format transition after Tina (arXiv 2504.15777).
"""

import math
from collections.abc import Mapping
from statistics import fmean, median, stdev
from typing import Any

from cluster.config.alarms import AlarmSettings
from cluster.record.memory_effect import MemoryEffect, memory_effect
from cluster.watch.alarms.alarm import Alarm, raised
from cluster.watch.alarms.windows import (
    Lines,
    accuracy_pays,
    column,
    form_rewards,
    levels,
    recent_mean,
    trained,
    untrainable_share,
)

TRANSITION_UPDATES = 3
TRANSITION_SIGMAS = 4
"""A jump must stand this far out of the spread of the updates before it; a steady rise does not."""
EVAL_SIGMAS = 2
MIN_EVALS = 3


def truncated(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Hardly an answer ends by itself. Warns: a run may grow out of it."""
    share = recent_mean(column(metrics, "truncated_share"), settings.window_updates)
    if share is None or share <= settings.truncated_above:
        return None
    return raised(
        "truncated",
        settings.truncated,
        f"{share:.0%} of rollouts ran into the token limit over the last {settings.window_updates} updates (limit "
        f"{settings.truncated_above:.0%}). Raise actors.max_new_tokens, or ask for shorter answers in task.system_prompt",
    )


def zero_variance(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Groups whose answers are all worth the same train nothing. Warns: a solved task looks like this too."""
    share = recent_mean(column(metrics, "zero_variance_share"), settings.window_updates)
    if share is None or share <= settings.zero_variance_above:
        return None
    accuracy = recent_mean(column(metrics, "accuracy"), settings.window_updates) or 0.0
    solved = accuracy >= settings.solved_accuracy
    advice = "The task is solved: stop, or take harder problems" if solved else _MORE_VARIANCE
    return raised(
        "zero_variance",
        settings.zero_variance,
        f"{share:.0%} of groups gave no gradient over the last {settings.window_updates} updates (limit "
        f"{settings.zero_variance_above:.0%}), at accuracy {accuracy:.2f}. {advice}",
    )


def invalid(metrics: Lines, evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Rollouts are lost to the verifier, to time or to faults, or evaluation cannot judge. Warns: the rest trains."""
    training = untrainable_share(metrics, settings.window_updates) or 0.0
    evaluation = _invalid_share(evals[-1]) if evals else 0.0
    if max(training, evaluation) <= settings.invalid_above:
        return None
    return raised(
        "invalid",
        settings.invalid,
        f"{training:.0%} of training rollouts could not be used over the last {settings.window_updates} updates, "
        f"{evaluation:.0%} of the last evaluation's answers not judged (limit {settings.invalid_above:.0%}). {_FIX_INVALID}",
    )


def invalid_nearly_all(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Nearly all work is thrown away. Pauses: only a repair outside of training helps."""
    share = untrainable_share(metrics, settings.window_updates)
    if share is None or share <= settings.invalid_nearly_all_above:
        return None
    return raised(
        "invalid_nearly_all",
        settings.invalid_nearly_all,
        f"{share:.0%} of rollouts could not be used over the last {settings.window_updates} updates (limit "
        f"{settings.invalid_nearly_all_above:.0%}). {_FIX_INVALID}",
    )


def reward_mode(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """The policy locks onto form while accuracy stays where it began. Warns: accuracy may yet follow."""
    form = levels(form_rewards(metrics), settings.window_updates)
    right = levels(column(metrics, "accuracy"), settings.window_updates)
    updates = len(trained(metrics))
    if form is None or right is None or updates < settings.reward_mode_after_updates:
        return None
    learned = right.now >= settings.solved_accuracy or right.now - right.early >= settings.accuracy_gain
    if learned or form.now - form.early < settings.reward_mode_rise:
        return None
    return raised(
        "reward_mode",
        settings.reward_mode,
        f"the form parts of the reward went from {form.early:.2f} to {form.now:.2f} in {updates} updates, accuracy from "
        f"{right.early:.2f} to {right.now:.2f}: the policy learns form alone. Lower the weights of format, integer and "
        "their like in task.rewards, or take easier problems",
    )


def format_transition(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """The form parts turn sharply, up or down. Warns, and means no harm: the best checkpoint is often near."""
    form, window = form_rewards(metrics), settings.window_updates
    if len(form) < window + TRANSITION_UPDATES:
        return None
    before, after = form[-window - TRANSITION_UPDATES : -TRANSITION_UPDATES], form[-TRANSITION_UPDATES:]
    start, end = fmean(before), median(after)  # the median: one odd update is no turn
    jump = abs(end - start)
    if jump < settings.format_transition_jump or jump < TRANSITION_SIGMAS * stdev(before):
        return None
    return raised(
        "format_transition",
        settings.format_transition,
        f"the form parts of the reward jumped from {start:.2f} to {end:.2f} within {TRANSITION_UPDATES} "
        f"updates, at step {metrics[-1].get('step')}. Compare checkpoints around it; if accuracy falls from here on, lower "
        "the weights of the form parts in task.rewards",
    )


def length_shrinks(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Answers become short for nothing. Warns: where accuracy rises, being brief is what was learned."""
    tokens = levels(column(metrics, "completion_tokens_mean"), settings.window_updates)
    if tokens is None or tokens.now >= settings.length_shrinks_below * tokens.early:
        return None
    if accuracy_pays(metrics, settings):
        return None
    return raised(
        "length_shrinks",
        settings.length_shrinks,
        f"answers shrank from {tokens.early:.1f} to {tokens.now:.1f} tokens (limit {settings.length_shrinks_below:g} of the "
        "start) and accuracy gained nothing. Lower learner.learning_rate, set learner.kl_weight above 0, or lower the "
        "weights of the form parts in task.rewards",
    )


def length_vanishes(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Hardly a token is written any more. Pauses: there is nothing left to reinforce."""
    tokens = levels(column(metrics, "completion_tokens_mean"), settings.window_updates)
    floor = settings.length_vanishes_below_tokens
    if tokens is None or tokens.now >= min(floor, settings.length_shrinks_below * tokens.early):
        return None
    if accuracy_pays(metrics, settings):
        return None
    return raised(
        "length_vanishes",
        settings.length_vanishes,
        f"answers shrank from {tokens.early:.1f} to {tokens.now:.1f} tokens (limit {floor:g}). Go back to an earlier "
        "checkpoint with a lower learner.learning_rate or learner.kl_weight above 0",
    )


def length_runs_away(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Answers grow for nothing. Warns: it costs time, and reasoning may need it."""
    tokens = levels(column(metrics, "completion_tokens_mean"), settings.window_updates)
    if tokens is None or tokens.now <= settings.length_runs_away_above * tokens.early:
        return None
    if accuracy_pays(metrics, settings):
        return None
    return raised(
        "length_runs_away",
        settings.length_runs_away,
        f"answers grew from {tokens.early:.1f} to {tokens.now:.1f} tokens (limit {settings.length_runs_away_above:g} times "
        "the start) and accuracy gained nothing. Set learner.overlong = 'penalty', add cosine_length to task.rewards, or "
        "lower actors.max_new_tokens",
    )


def entropy(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """The policy samples one answer only, and the task is not solved. Pauses: without variety there is no gradient.

    An entropy of exactly 0 was not measured: the scripted learner computes none, and an update whose groups all lack
    variance runs no token.
    """
    measured = [value for value in column(metrics, "entropy") if value > 0]
    nats = levels(measured, settings.window_updates)
    if nats is None or nats.now >= min(settings.entropy_below, settings.entropy_below_share * nats.early):
        return None
    accuracy = recent_mean(column(metrics, "accuracy"), settings.window_updates) or 0.0
    if accuracy >= settings.solved_accuracy:
        return None
    return raised(
        "entropy",
        settings.entropy,
        f"entropy per token fell from {nats.early:.3g} to {nats.now:.2g} nats (limits {settings.entropy_below:g} and "
        f"{settings.entropy_below_share:g} of the start) at accuracy {accuracy:.2f}. Go back to an earlier checkpoint with "
        "a lower learner.learning_rate, a higher learner.clip_high, or learner.entropy_weight above 0",
    )


def train_up_eval_down(metrics: Lines, evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Training reward rose since the best evaluation, held-out accuracy fell by more than chance. Warns: evaluated
    adapters are kept, so nothing is lost while a person looks at rollouts."""
    for limit in sorted({line["max_new_tokens"] for line in evals}):
        alike = [line for line in evals if line["max_new_tokens"] == limit and line.get("k") is None]
        if len(alike) < MIN_EVALS:
            continue
        *earlier, last = sorted(alike, key=lambda line: line["step"])
        best = max(earlier, key=lambda line: line["accuracy"])
        fall = best["accuracy"] - last["accuracy"]
        then, now = (_task_reward_at(metrics, line["step"], settings.window_updates) for line in (best, last))
        if then is None or now is None or now - then < settings.train_up:
            continue
        if fall > max(settings.eval_down, EVAL_SIGMAS * _standard_error(best, last)):
            return raised(
                "train_up_eval_down",
                settings.train_up_eval_down,
                f"task reward in training rose from {then:.2f} to {now:.2f} between steps {best['step']} and "
                f"{last['step']}, held-out accuracy fell from {best['accuracy']:.3f} to {last['accuracy']:.3f} (n = "
                f"{last['n']}). Read rollouts for reward hacking, lower the weights of shaped parts in task.rewards, or "
                f"take the adapter evaluated at step {best['step']}",
            )
    return None


def memory_silent(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """A memory that is switched on and changes next to nothing: the run is plain GRPO that pays for an encoder. Warns.

    Weight 0, an ended annealing and a warm-up leave no group that it may act on, and nothing to say here."""
    effect = _recent_effect(metrics, settings)
    if effect is None or effect.bonus_groups < settings.memory_silent_groups:
        return None
    if effect.bonus_changed_share >= settings.memory_silent_below:
        return None
    return raised(
        "memory_silent",
        settings.memory_silent,
        f"memory changed the advantages of {effect.bonus_changed_share:.0%} of the {effect.bonus_groups} groups it may act "
        f"on over the last {effect.updates} updates (limit {settings.memory_silent_below:.0%}); spread within a group: "
        f"exploit {effect.exploit_std:.3f}, explore {effect.explore_std:.3f}, bonus {effect.bonus_std:.3f}. {_FIX_SILENT}",
    )


def memory_dominant(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """Where the task tells right from wrong, the bonus moves the advantages more than the task does. Warns."""
    effect = _recent_effect(metrics, settings)
    if effect is None or effect.bonus_signal_groups < settings.memory_dominant_groups:
        return None
    if effect.bonus_signal_share <= settings.memory_dominant_above:
        return None
    return raised(
        "memory_dominant",
        settings.memory_dominant,
        f"{effect.bonus_signal_share:.0%} of the squared advantage is memory's in the {effect.bonus_signal_groups} groups "
        f"with a task signal of the last {effect.updates} updates (limit {settings.memory_dominant_above:.0%}). Lower "
        "memory.cap_share with memory.mix = 'scaled', or set memory.where = 'no_task_signal' or memory.anneal_steps",
    )


def _recent_effect(metrics: Lines, settings: AlarmSettings) -> MemoryEffect | None:
    """None until there is a whole window; lines without the fields (runs of 57c9e8c) do not count."""
    known = [line for line in trained(metrics) if "bonus_groups" in line]
    return memory_effect(known[-settings.window_updates :]) if len(known) >= settings.window_updates else None


_MORE_VARIANCE = (
    "Take problems of a difficulty that is sometimes solved, raise actors.rollouts_per_group or actors.temperature"
)
_FIX_SILENT = (
    "A bonus without spread sits at a bound: take memory.mix = 'scaled' instead of 'capped'. Terms without spread: are the "
    "answers all alike (`memr memory query`), or memory.window and memory.normaliser_range_floor too large?"
)
_FIX_INVALID = (
    "Run `memr check-task`; see dropped_or_failed and events.jsonl for reasons; raise task.verifier_timeout_s or "
    "actors.lease_deadline_s where time ran out"
)


def _invalid_share(report: Mapping[str, Any]) -> float:
    answers = report["n"] * (report.get("k") or 1)
    return float(report.get("invalid", 0)) / answers if answers else 0.0


def _task_reward_at(metrics: Lines, step: int, window: int) -> float | None:
    """Windowed mean at the evaluation of this step; of the first window for steps before its end."""
    lines = trained(metrics)
    until = [line for line in lines if line["step"] <= step]
    return recent_mean(column(until if len(until) >= window else lines[:window], "task_reward"), window)


def _standard_error(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Of the difference of two shares. Too wide for the same problems twice, which errs towards silence."""
    return math.sqrt(sum(line["accuracy"] * (1 - line["accuracy"]) / max(1, line["n"]) for line in (one, other)))
