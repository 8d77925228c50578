"""What happens at the very end of a run is heard: an alarm of the last update, and errors of what was still under way."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.flow.uninterruptible import Undivided
from cluster.record.checkpoint import read_checkpoint
from cluster.record.events.event import Event
from cluster.watch.alarms.alarm import Action, Alarm
from contracts.adapter import Adapter
from contracts.errors import RunStopped
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import RolloutGroup, ScoredGroup
from tests.fakes import FakeMemory
from tests.harness import Run, make_config
from tests.unit.cluster.stops import UPDATES, ChainedLearner, check_finished, check_stopped, live, new_run, stop_config


class Alarmed:
    """A watcher that obeys an alarm of one update's metrics, as cluster.watch.alarms.alarms.AlarmWatcher does."""

    def __init__(self, run: Run, action: Action) -> None:
        self.run, self.action = run, action

    def watch(self, kind: str, line: dict[str, object]) -> None:
        if kind == "metrics" and line["step"] == UPDATES:
            self.run.controller.health.apply(Alarm("entropy", self.action, "entropy fell"))

    def show_event(self, event: Event) -> None: ...

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("lag", [0, 2])
async def test_a_pause_in_the_very_last_update_stops_the_run_which_is_taken_up(tmp_path: Path, lag: int) -> None:
    config = stop_config(tmp_path, lag)
    run = new_run(config, ChainedLearner(lag), random.Random(0))
    run.recorder.add_watcher(Alarmed(run, Action.PAUSE))
    stopped = await live(run)
    assert isinstance(stopped, RunStopped)
    assert "entropy fell" in str(stopped)
    check_stopped(run)
    assert read_checkpoint(run.path)[0].step == UPDATES
    assert UPDATES not in {line["step"] for line in run.lines("eval.jsonl")}
    again = new_run(config, ChainedLearner(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)


@pytest.mark.parametrize("lag", [0, 2])
async def test_a_warning_in_the_very_last_update_ends_nothing(tmp_path: Path, lag: int) -> None:
    run = new_run(stop_config(tmp_path, lag), ChainedLearner(lag), random.Random(0))
    run.recorder.add_watcher(Alarmed(run, Action.WARN))
    assert await live(run) is None
    check_finished(run)


async def test_what_work_raised_after_its_caller_had_gone_is_returned_once() -> None:
    undivided, go = Undivided(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        raise OSError("the disk is full")

    caller = asyncio.ensure_future(undivided(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it fails before anybody asks
    assert [str(error) for error in await undivided.finished()] == ["the disk is full"]
    assert await undivided.finished() == []


async def test_what_a_caller_was_told_is_not_returned_again() -> None:
    undivided = Undivided()

    async def work() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        await undivided(work())
    assert await undivided.finished() == []


async def test_an_error_under_way_while_the_run_ends_is_an_incident(tmp_path: Path) -> None:
    """Memory is at a call when a halt ends the run, and fails afterwards; the halt is what is raised, and no incident."""

    class FailsAfterTheHalt(FakeMemory):
        async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
            if self.version >= 4:
                run.controller.health.halt("4 KB of disk are free")
                await asyncio.sleep(0.05)
                raise ValueError("memory lost its place")
            return await super().score(groups)

    run = Run(make_config(tmp_path, updates=4), memory=FailsAfterTheHalt())
    with pytest.raises(RunStopped, match="4 KB of disk are free"):
        await run.run()
    told = [line for line in run.lines("events.jsonl") if line["event"] == "error_under_way"]
    assert [line["error"] for line in told] == ["ValueError"]
    assert "memory lost its place" in told[0]["headline"]


async def test_an_error_that_ends_the_run_is_no_incident_of_the_run_loop(tmp_path: Path) -> None:
    class Fails(ChainedLearner):
        async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
            raise RunStopped("enough")

    run = Run(make_config(tmp_path, updates=4), learner=Fails(0))
    with pytest.raises(RunStopped, match="enough"):
        await run.run()
    assert [line for line in run.lines("events.jsonl") if line["event"] == "error_under_way"] == []


@pytest.mark.timeout(20)
async def test_work_that_ended_in_this_very_turn_of_the_loop_ends_the_wait() -> None:
    """From Python 3.12 on the wait went round forever; 3.11 lets the loop run in between."""
    undivided = Undivided()
    caller = asyncio.ensure_future(undivided(asyncio.sleep(0, "done")))
    await asyncio.sleep(0)
    while not any(task.done() for task in undivided._under_way):
        await asyncio.sleep(0)
    assert await undivided.finished() == []
    assert await caller == "done"
