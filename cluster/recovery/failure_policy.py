"""What follows a failure: a function of the failures so far, of budgets and of the clock. It decides only.

worker           replaced within its budget; then the run carries on with fewer, down to min_workers; then it stops
memory, learner  revived from checkpoint and log within their budget; then the whole run is resumed
run              resumed within its budget, after a pause that doubles; then it stops
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """Who failed. RUN: the controller, Ray itself, or a run that made no progress."""

    WORKER = "worker"
    MEMORY = "memory"
    LEARNER = "learner"
    RUN = "run"


class RestartAction(StrEnum):
    """What follows a failure."""

    CARRY_ON = "carry on"
    RESTART_COMPONENT = "restart component"
    RESTART_RUN = "restart run"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. at_s: seconds on the caller's clock."""

    part: Component
    at_s: float


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `restarts` within any `window_s` seconds."""

    restarts: int
    window_s: float


@dataclass(frozen=True, slots=True)
class RestartDecision:
    """after_s: how long to wait before acting. spent: failures of this part in the window, this one included."""

    decision: RestartAction
    after_s: float = 0.0
    spent: int = 0


PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


def decide(
    failures: Sequence[Failure], budget: Budget, now_s: float, *, enough_without: bool = False
) -> RestartDecision:
    """The newest failure is the last. enough_without: a worker's loss leaves at least min_workers."""
    newest = failures[-1]
    recent = [f for f in failures if f.part is newest.part and now_s - f.at_s <= budget.window_s]
    spent = len(recent)
    within = spent <= budget.restarts
    match newest.part:
        case Component.WORKER:
            without = RestartAction.CARRY_ON if enough_without else RestartAction.STOP
            return RestartDecision(RestartAction.RESTART_COMPONENT if within else without, spent=spent)
        case Component.MEMORY | Component.LEARNER:
            return RestartDecision(
                RestartAction.RESTART_COMPONENT if within else RestartAction.RESTART_RUN, spent=spent
            )
        case Component.RUN:
            pause_s = min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** (spent - 1))
            return (
                RestartDecision(RestartAction.RESTART_RUN, pause_s, spent)
                if within
                else RestartDecision(RestartAction.STOP, spent=spent)
            )
