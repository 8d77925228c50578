"""How many workers a run should have, from who waits for whom. Pure: measured waits in, a number and a reason out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.config.cluster import AutoscaleSettings


@dataclass(frozen=True, slots=True)
class Waits:
    """One update: its seconds, those in which the learner had no batch for want of rollouts or of memory, and how many
    groups lay ready when it was over, of how many slots."""

    step: int
    step_s: float
    wait_rollouts_s: float
    wait_memory_s: float
    buffer_groups: int
    slots: int


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """A number of workers, and the reason as one sentence."""

    workers: int
    reason: str


def wanted_workers(
    history: Sequence[Waits], now: int, last_change_step: int, settings: AutoscaleSettings
) -> ScalingDecision:
    """now: workers there are. Grows by what the learner's idle share suggests, at most twofold; shrinks one by one, and
    only while finished groups lie in the buffer; never twice within the cool-down."""
    clamped = min(max(now, settings.min_workers), settings.max_workers)
    if clamped != now:
        return ScalingDecision(clamped, f"{now} workers lie outside {settings.min_workers} to {settings.max_workers}")
    recent = [waits for waits in history if waits.step > last_change_step][-settings.window_updates :]
    if len(recent) < settings.window_updates:
        return ScalingDecision(now, "too few updates since the last change to judge")
    if recent[-1].step - last_change_step < settings.cooldown_updates:
        return ScalingDecision(now, "cooling down after the last change")
    idle = idle_share(recent)
    ready = sum(w.buffer_groups for w in recent) / max(1, sum(w.slots for w in recent))
    if idle > settings.raise_above and now < settings.max_workers:
        wanted = min(settings.max_workers, 2 * now, max(now + 1, math.ceil(now / (1 - idle) - 1e-9)))
        return ScalingDecision(wanted, f"the learner waits for rollouts {idle:.0%} of its time")
    if idle < settings.lower_below and ready >= 1 / 3 and now > settings.min_workers:
        return ScalingDecision(
            now - 1, f"the learner waits {idle:.0%} of its time and {ready:.0%} of the slots lie ready"
        )
    return ScalingDecision(now, "balanced")


def idle_share(history: Sequence[Waits]) -> float:
    """Of the learner's time, waiting for rollouts; below 1."""
    total = sum(w.step_s for w in history)
    return min(0.99, sum(w.wait_rollouts_s for w in history) / total) if total > 0 else 0.0


def bottleneck(history: Sequence[Waits]) -> str:
    """Which side the others wait for."""
    total = sum(w.step_s for w in history) or 1.0
    rollouts, memory = sum(w.wait_rollouts_s for w in history) / total, sum(w.wait_memory_s for w in history) / total
    if max(rollouts, memory) < 0.1:
        return "the learner (it hardly ever waits)"
    if rollouts >= memory:
        return f"rollout workers: the learner waited for rollouts {rollouts:.0%} of its time of late (`memr scale` adds workers)"
    return f"memory: the learner waited for intrinsic rewards {memory:.0%} of its time of late"
