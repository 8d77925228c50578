"""Property: any reasons at any moments, one life after the other, lead to where an uninterrupted run leads.

At lag 0 to the same adapter bytes; else to the same multiset of trained problems. After every stop in order, and at the end,
the ledger's identity holds and the newest checkpoint is of just the step that was reached.
"""

import asyncio
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.cluster.stops import (
    STOPS,
    UPDATES,
    ChainedLearner,
    Moment,
    check_finished,
    check_stopped,
    final_weights,
    live,
    new_run,
    stop_config,
)

PHASES = ("loading", "waiting", "scoring", "updating", "publishing", "checkpointing", "evaluating")
moments = st.builds(Moment, st.sampled_from(PHASES), st.integers(0, UPDATES), st.integers(0, 30))
stops = st.lists(st.tuples(st.sampled_from(sorted(STOPS)), moments), min_size=1, max_size=3)
SAME = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("lag", [0, 1, 2])
@settings(SAME, max_examples=8)
@given(stops, st.integers(0, 99))
def test_whatever_stops_a_run_it_ends_where_it_would_have(lag: int, stops: list[tuple[str, Moment]], seed: int) -> None:
    ends_where_it_would_have(lag, stops, seed)


@pytest.mark.parametrize("lag", [0, 2])
def test_an_alarm_that_came_when_all_updates_were_made_stops_no_later_life(lag: int) -> None:
    ends_where_it_would_have(lag, [("ctrl_c", Moment("loading", 1, 0)), ("pause", Moment("waiting", 0, 0))], 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lag", [0, 1, 2])
@settings(SAME, max_examples=300)
@given(stops, st.integers(0, 10**6))
def test_whatever_stops_a_run_it_ends_where_it_would_have_often(
    lag: int, stops: list[tuple[str, Moment]], seed: int
) -> None:
    ends_where_it_would_have(lag, stops, seed)


def ends_where_it_would_have(lag: int, stops: list[tuple[str, Moment]], seed: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="memr-stops-"))
    try:
        path = asyncio.run(many_lives(folder, lag, stops, random.Random(seed)))
        if lag == 0 and "streak" not in [reason for reason, _ in stops]:  # a streak costs problems, and others come
            assert final_weights(path) == whole()
    finally:
        shutil.rmtree(folder)


async def many_lives(folder: Path, lag: int, stops: list[tuple[str, Moment]], noise: random.Random) -> Path:
    """Stopped for each reason at its moment, if that comes in the life; then to the end."""
    config = stop_config(folder, lag)
    for reason, moment in stops:
        run = new_run(config, ChainedLearner(lag, delay_s=0.002), noise)
        await live(run, moment, reason)
        if reason != "kill" and run.controller.restored:
            check_stopped(run)
    last = new_run(config, ChainedLearner(lag), noise)
    assert await live(last) is None
    check_finished(last, all_trained="streak" not in [reason for reason, _ in stops])
    return last.path


@cache
def whole() -> bytes:
    """The last weights of a synchronous run that nothing stopped."""
    folder = Path(tempfile.mkdtemp(prefix="memr-whole-"))
    try:
        run = new_run(stop_config(folder, 0), ChainedLearner(0), random.Random(0))
        assert asyncio.run(live(run)) is None
        return final_weights(run.path)
    finally:
        shutil.rmtree(folder)
