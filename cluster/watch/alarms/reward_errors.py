"""How often the scorer or a reward part fails, over a window of updates: what the policy then learns from is a 0 that nobody meant.

lines of metrics.jsonl -> share of rollouts by name -> the alarm, a line of `memr status`, summary and report. Pure.
"""

from collections import defaultdict
from collections.abc import Mapping

from cluster.config.alarms import AlarmSettings
from cluster.watch.alarms.alarm import Alarm, raised
from cluster.watch.alarms.windows import Lines
from contracts.verdict import SCORER


def error_shares(metrics: Lines) -> dict[str, float]:
    """Share of the lines' rollouts over which SCORER or a reward part failed, by name; nothing where nothing failed."""
    failed: dict[str, float] = defaultdict(float)
    total = 0
    for line in metrics:
        judged, errors = line.get("rollouts_judged", 0), line.get("reward_errors", {})
        total += judged
        for name, share in errors.items():
            failed[name] += share * judged
    return {name: count / total for name, count in sorted(failed.items()) if count}


def errors_text(shares: Mapping[str, float]) -> str:
    """One line for people; "" where nothing failed."""
    told = [f"{_name(name)} failed over {share:.1%} of the rollouts, {_cost(name)}" for name, share in shares.items()]
    return "; ".join(told)


def reward_errors(metrics: Lines, _evals: Lines, settings: AlarmSettings) -> Alarm | None:
    """A scorer or a reward part fails over a large share of the answers. Warns: the run goes on with zeros."""
    window = metrics[-settings.window_updates :]
    if len(window) < settings.window_updates:
        return None
    often = {name: share for name, share in error_shares(window).items() if share > settings.reward_errors_above}
    if not often:
        return None
    return raised(
        "reward_errors",
        settings.reward_errors,
        f"over the last {len(window)} updates {errors_text(often)} (limit {settings.reward_errors_above:.0%}). The incidents "
        "`could_not_be_judged` have file, line and error; mend it and look with `memr check-task`",
    )


def _name(name: str) -> str:
    return "the scorer" if name == SCORER else f"reward part {name}"


def _cost(name: str) -> str:
    return "which count as wrong" if name == SCORER else "and counted 0 there"
