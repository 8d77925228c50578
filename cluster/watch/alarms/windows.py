"""Numbers out of histories: windowed means, now against the start. Pure.

Lines of metrics.jsonl are never cleaned, so fields may be missing or not finite; those are left out here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cluster.config.alarms import AlarmSettings
from tasks.config import FORM_REWARDS

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Levels:
    """Means over the first and the last window of the run."""

    early: float
    now: float


def trained(metrics: Lines) -> Lines:
    """Updates with rollouts. The others report zeros that mean nothing."""
    return [line for line in metrics if line.get("num_rollouts") != 0]


def column(metrics: Lines, name: str) -> list[float]:
    """Returns one metric's finite values over the updates that trained, in their order."""
    return _finite([line.get(name) for line in trained(metrics)])


def form_rewards(metrics: Lines) -> list[float]:
    """The weighted sum of the form parts per update; empty for a task without them."""
    parts = [line.get("reward_parts") or {} for line in trained(metrics)]
    return _finite([sum(p[name] for name in FORM_REWARDS if name in p) for p in parts if p.keys() & set(FORM_REWARDS)])


def recent_mean(values: Sequence[float], window: int) -> float | None:
    """None until there is a whole window."""
    return fmean(values[-window:]) if len(values) >= window else None


def levels(values: Sequence[float], window: int) -> Levels | None:
    """None until the two windows no longer overlap."""
    return Levels(fmean(values[:window]), fmean(values[-window:])) if len(values) >= 2 * window else None


def accuracy_pays(metrics: Lines, settings: AlarmSettings) -> bool:
    """Whether training goes well by what it is for: the task is solved, or accuracy has risen since the start and
    kept at least half of its best rise."""
    accuracies, window = column(metrics, "accuracy"), settings.window_updates
    whole = range(0, len(accuracies) - window + 1, window)
    means = [fmean(accuracies[start : start + window]) for start in whole]
    if not means:
        return False
    now = fmean(accuracies[-window:])
    best_gain = max(*means, now) - means[0]
    return now >= settings.solved_accuracy or (best_gain >= settings.accuracy_gain and now - means[0] >= best_gain / 2)


def untrainable_share(metrics: Lines, window: int) -> float | None:
    """Of the rollouts of the last `window` updates, the share that no update could use: invalid verdicts, timeouts,
    problems dropped or failed. A full group is taken to be the largest seen; so this never says too much."""
    if len(metrics) < window:
        return None
    lines = metrics[-window:]
    sizes = [float(line["num_rollouts"] / line["num_groups"]) for line in metrics if line.get("num_groups")]
    groups = sum(int(line.get("num_groups", 0)) for line in lines)
    groups += _lost(metrics[-1]) - (_lost(metrics[-window - 1]) if len(metrics) > window else 0)
    if not sizes or groups <= 0 or max(sizes) <= 0:
        return None
    used = sum(int(line.get("num_rollouts", 0)) for line in lines)
    return max(0.0, 1.0 - used / (math.ceil(max(sizes)) * groups))


def _lost(line: Mapping[str, Any]) -> int:
    ledger = line.get("ledger") or {}
    return int(ledger.get("dropped", 0)) + int(ledger.get("failed", 0))


def _finite(values: Sequence[Any]) -> list[float]:
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
