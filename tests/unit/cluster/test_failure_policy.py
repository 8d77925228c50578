"""What follows a failure, case by case."""

import pytest

from cluster.recovery.failure_policy import (
    LONGEST_PAUSE_S,
    Budget,
    Component,
    Failure,
    RestartAction,
    RestartDecision,
    decide,
)

TWO_A_MINUTE = Budget(restarts=2, window_s=60.0)


def failures(part: Component, *times_s: float) -> list[Failure]:
    return [Failure(part, at_s) for at_s in times_s]


@pytest.mark.parametrize(
    ("part", "times_s", "decision"),
    [
        (Component.WORKER, [0.0], RestartAction.RESTART_COMPONENT),
        (Component.WORKER, [0.0, 1.0], RestartAction.RESTART_COMPONENT),
        (Component.WORKER, [0.0, 1.0, 2.0], RestartAction.STOP),
        (Component.WORKER, [0.0, 1.0, 61.5], RestartAction.RESTART_COMPONENT),  # the first two are forgotten
        (Component.MEMORY, [0.0], RestartAction.RESTART_COMPONENT),
        (Component.MEMORY, [0.0, 1.0, 2.0], RestartAction.RESTART_RUN),
        (Component.LEARNER, [0.0, 1.0, 2.0], RestartAction.RESTART_RUN),
        (Component.LEARNER, [0.0, 1.0, 61.5], RestartAction.RESTART_COMPONENT),
        (Component.RUN, [0.0], RestartAction.RESTART_RUN),
        (Component.RUN, [0.0, 1.0], RestartAction.RESTART_RUN),
        (Component.RUN, [0.0, 1.0, 2.0], RestartAction.STOP),
        (Component.RUN, [0.0, 1.0, 61.5], RestartAction.RESTART_RUN),
    ],
)
def test_a_failure_is_made_good_while_the_window_has_budget(
    part: Component, times_s: list[float], decision: RestartAction
) -> None:
    assert decide(failures(part, *times_s), TWO_A_MINUTE, times_s[-1]).decision is decision


def test_without_budget_a_run_carries_on_with_fewer_workers_while_there_are_enough() -> None:
    lost = failures(Component.WORKER, 0.0, 1.0, 2.0)
    assert decide(lost, TWO_A_MINUTE, 2.0, enough_without=True).decision is RestartAction.CARRY_ON
    assert decide(lost, TWO_A_MINUTE, 2.0, enough_without=False).decision is RestartAction.STOP


def test_the_budget_of_one_part_is_not_spent_by_another() -> None:
    history = [*failures(Component.WORKER, 0.0, 1.0, 2.0), *failures(Component.MEMORY, 3.0)]
    assert decide(history, TWO_A_MINUTE, 3.0) == RestartDecision(RestartAction.RESTART_COMPONENT, spent=1)


def test_pauses_before_a_restart_of_the_run_double_up_to_a_limit() -> None:
    generous = Budget(restarts=20, window_s=1e6)
    pauses = [decide(failures(Component.RUN, *range(n)), generous, float(n)).after_s for n in range(1, 12)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_budget_of_nothing_restarts_nothing() -> None:
    none = Budget(restarts=0, window_s=60.0)
    assert decide(failures(Component.RUN, 0.0), none, 0.0).decision is RestartAction.STOP
    assert decide(failures(Component.LEARNER, 0.0), none, 0.0).decision is RestartAction.RESTART_RUN
