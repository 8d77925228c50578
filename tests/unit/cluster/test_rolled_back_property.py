"""Property: a run with one roll-back that is killed at any moments, and whose learner is lost in any calls, ends where the
run ends that nothing happened to: at lag 0 with the same adapter bytes, else with the same books."""

import asyncio
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.record.recorder import Recorder
from cluster.recovery.failure_policy import Component
from cluster.recovery.restartable import RestartableLearner
from tests.harness import Run
from tests.unit.cluster.stops import (
    UPDATES,
    ChainedLearner,
    Moment,
    check_finished,
    final_weights,
    live,
    new_run,
    stop_config,
)
from tests.unit.cluster.test_lost_in_a_roll_back import Death, OnceLost, alarm_before_turning
from tests.unit.cluster.test_restartable import care
from tests.unit.cluster.test_stops_property import PHASES, SAME

Kill = Moment
Loss = tuple[str, int, bool]
kills = st.lists(st.builds(Moment, st.sampled_from(PHASES), st.integers(0, UPDATES), st.integers(0, 30)), max_size=3)
losses = st.lists(
    st.tuples(st.sampled_from(["update", "roll_back", "save"]), st.integers(1, UPDATES), st.booleans()), max_size=3
)
turns = st.integers(2, UPDATES)


@pytest.mark.parametrize("lag", [0, 2])
@settings(SAME, max_examples=8)
@example(5, [Moment("checkpointing", 4)], [])  # the checkpoint that the roll-back goes to is not made in this life
@example(3, [Moment("checkpointing", 3)], [])  # nor that of the roll-back itself
@given(turns, kills, losses)
def test_a_run_with_a_roll_back_ends_where_it_would_have(
    lag: int, turn: int, kills: list[Kill], losses: list[Loss]
) -> None:
    ends_where_it_would_have(lag, turn, kills, losses)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lag", [0, 1, 2])
@settings(SAME, max_examples=200)
@given(turns, kills, losses)
def test_a_run_with_a_roll_back_ends_where_it_would_have_often(
    lag: int, turn: int, kills: list[Kill], losses: list[Loss]
) -> None:
    ends_where_it_would_have(lag, turn, kills, losses)


def ends_where_it_would_have(lag: int, turn: int, kills: list[Kill], losses: list[Loss]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="memr-turned-"))
    try:
        deaths = [Death(call, after=after, at=version) for call, version, after in losses]
        last = asyncio.run(lives(folder, lag, turn, kills, deaths))
        check_finished(last)
        assert not [event for event in last.lines("events.jsonl") if event["event"] == "replayed_differently"]
        if lag == 0:
            assert final_weights(last.path) == whole(turn)
    finally:
        shutil.rmtree(folder)


async def lives(folder: Path, lag: int, turn: int, kills: list[Kill], deaths: list[Death]) -> Run:
    for moment in kills:
        await live(turned(folder, lag, turn, deaths), moment, "kill")
    last = turned(folder, lag, turn, deaths)
    assert await live(last) is None
    return last


def turned(folder: Path, lag: int, turn: int, deaths: list[Death]) -> Run:
    """A life in which the update `turn` is turned back by an alarm; each death comes once in all lives."""
    config = stop_config(folder, lag, alarms={"entropy": "roll_back"})

    def born() -> OnceLost:
        return OnceLost(ChainedLearner(lag, delay_s=0.002), *deaths)

    def revived(recorder: Recorder) -> RestartableLearner:
        return RestartableLearner(born(), care(config, recorder, Component.LEARNER, born))

    run = new_run(config, revived, random.Random(0))
    alarm_before_turning(run, turn)
    return run


@cache
def whole(turn: int) -> bytes:
    """The last weights of a synchronous run that nothing happened to."""
    folder = Path(tempfile.mkdtemp(prefix="memr-whole-"))
    try:
        return final_weights(asyncio.run(lives(folder, 0, turn, [], [])).path)
    finally:
        shutil.rmtree(folder)
