"""What a run must notice by itself: it learns nothing, or learns the wrong thing. Pure; the controller acts.

    first batch's shares --preflight--> alarms         metrics.jsonl, eval.jsonl --MONITORS--> alarms

Limits and actions are in cluster/config/alarms.py, monitors in monitors.py, their numbers in windows.py.
"""

from collections.abc import Callable, Collection, Sequence

from cluster.config.alarms import AlarmSettings
from cluster.watch.alarms import monitors as monitor
from cluster.watch.alarms.alarm import Action, Alarm, raised
from cluster.watch.alarms.reward_errors import reward_errors
from cluster.watch.alarms.windows import Lines

__all__ = ["MONITORS", "Action", "Alarm", "AlarmSettings", "alarms", "newly_raised", "preflight"]

MONITORS: tuple[Callable[[Lines, Lines, AlarmSettings], Alarm | None], ...] = (
    monitor.truncated,
    monitor.zero_variance,
    monitor.invalid,
    monitor.invalid_nearly_all,
    monitor.reward_mode,
    monitor.format_transition,
    monitor.length_shrinks,
    monitor.length_vanishes,
    monitor.length_runs_away,
    monitor.entropy,
    monitor.train_up_eval_down,
    monitor.memory_silent,
    monitor.memory_dominant,
    reward_errors,
)


def alarms(metrics: Lines, evals: Lines, settings: AlarmSettings) -> list[Alarm]:
    """All that holds now, given the run's whole history."""
    found = (check(metrics, evals, settings) for check in MONITORS)
    return [alarm for alarm in found if alarm is not None]


def newly_raised(before: Collection[str], now: Sequence[Alarm]) -> list[Alarm]:
    """before: names raised at the last look. An alarm that cleared and came back is new again."""
    return [alarm for alarm in now if alarm.name not in before]


def preflight(
    *, truncated_share: float, invalid_share: float, zero_variance_share: float, settings: AlarmSettings
) -> list[Alarm]:
    """Whether the first batch could teach anything. Shares: of rollouts, of rollouts, of groups. Pauses for truncation
    and invalid answers; warns of zero variance, which a small batch may show by chance."""
    found = (
        _over(
            "truncated",
            truncated_share,
            "of rollouts ran into the token limit",
            settings,
            "Raise actors.max_new_tokens, or ask for shorter answers in task.system_prompt",
        ),
        _over(
            "invalid",
            invalid_share,
            "of rollouts could not be judged",
            settings,
            "Run `memr check-task`: the verifier fails, times out or does not fit the answers",
        ),
        _over(
            "zero_variance",
            zero_variance_share,
            "of groups give no gradient: their answers are all worth the same",
            settings,
            "Choose a task difficulty that is sometimes solved, or raise actors.rollouts_per_group or actors.temperature",
        ),
    )
    return [alarm for alarm in found if alarm is not None]


def _over(what: str, share: float, meaning: str, settings: AlarmSettings, fix: str) -> Alarm | None:
    name = f"preflight_{what}"
    limit = getattr(settings, f"{name}_above")
    if share <= limit:
        return None
    headline = f"first batch: {share:.0%} {meaning} (limit {limit:.0%}). {fix}"
    return raised(name, getattr(settings, name), headline)
