"""A learner that is lost between an update and the roll-back that follows from it, or in the middle of either: the log, the
published adapters and the learner tell of the same weights, and of the same as in a run that lost nothing."""

import asyncio
import json
import random
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.handles import LearnerHandle
from cluster.record.events.event import Event
from cluster.record.history import Kind
from cluster.record.recorder import Recorder
from cluster.record.run_log import read_log
from cluster.recovery.failure_policy import Component
from cluster.recovery.restartable import RestartableLearner
from cluster.watch.alarms.alarm import Action, Alarm
from contracts.adapter import Adapter
from contracts.errors import ActorLostError, RunStopped
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup
from tests.harness import Run
from tests.unit.cluster.stops import (
    STOPS,
    UPDATES,
    ChainedLearner,
    Moment,
    check_finished,
    final_weights,
    live,
    new_run,
    scripted_learner,
    stop_config,
    tiny_learner,
)
from tests.unit.cluster.test_restartable import care

TURNED = 4
"""The version that gets an earlier checkpoint's weights."""


class OnceLost:
    """cluster.handles.LearnerHandle around another, whose process dies the given deaths."""

    def __init__(self, inner: Any, *deaths: "Death") -> None:
        self._inner, self._deaths = inner, deaths
        self.events: list[tuple[Any, ...]] = []

    @property
    def version(self) -> int:
        return int(self._inner.version)

    async def first_adapter(self) -> Adapter:
        adapter: Adapter = await self._inner.first_adapter()
        return adapter

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        answer: tuple[StepReport, Adapter] = await self._lethal(
            "update", self.version + 1, lambda: self._inner.update(groups)
        )
        return answer

    async def save(self, directory: Path) -> None:
        await self._lethal("save", self.version, lambda: self._inner.save(directory))

    async def restore(self, directory: Path) -> None:
        await self._inner.restore(directory)

    async def roll_back(self, directory: Path) -> Adapter:
        adapter: Adapter = await self._lethal("roll_back", self.version, lambda: self._inner.roll_back(directory))
        return adapter

    async def _lethal(self, call: str, version: int, work: Callable[[], Awaitable[Any]]) -> Any:
        now = [death for death in self._deaths if death.comes(call, version)]
        if any(not death.after for death in now):
            raise ActorLostError("killed")
        answer = await work()
        if now:
            raise ActorLostError("killed")
        return answer


class Death:
    """call: in which the process is lost, at the version `at`, once. after: when the work is done, before anybody hears
    of it."""

    def __init__(self, call: str, *, after: bool, at: int = TURNED) -> None:
        self._call, self.after, self._at, self.happened = call, after, at, False

    def comes(self, call: str, version: int) -> bool:
        if (call, version) != (self._call, self._at) or self.happened:
            return False
        self.happened = True
        return True


def chained(lag: int) -> ChainedLearner:
    return ChainedLearner(lag)


def alarm_before_turning(run: Run, turned: int = TURNED) -> None:
    """An alarm that asks for a roll-back: the next update, `turned`, gets the weights of a checkpoint; TURNED of step 2."""

    class AtItsTurn:
        def watch(self, kind: str, line: dict[str, Any]) -> None:
            if kind == "metrics" and line["step"] == turned - 1:
                run.controller.health.apply(Alarm("entropy", Action.ROLL_BACK, "entropy fell"))

        def show_event(self, event: Event) -> None: ...

        def show_groups(self, groups: Sequence[ScoredGroup]) -> None: ...

        def close(self) -> None: ...

    run.recorder.add_watcher(AtItsTurn())


async def turned_run(path: Path, lag: int, make: Callable[[int], LearnerHandle], death: Death | None) -> Run:
    config = stop_config(path, lag, alarms={"entropy": "roll_back"})

    def revived(recorder: Recorder) -> LearnerHandle:
        if death is None:
            return make(lag)

        def born() -> OnceLost:
            return OnceLost(make(lag), death)

        return RestartableLearner(born(), care(config, recorder, Component.LEARNER, born))

    run = new_run(config, revived, random.Random(0))
    alarm_before_turning(run)
    assert await live(run) is None
    return run


def check_one_truth(run: Run, lives: int = 1) -> None:
    """What the log books of each version is what was published under its number, once."""
    booked = [json.loads(frame.payload) for frame in read_log(run.path / "log") if frame.kind == Kind.TRAINED]
    assert [frame["step"] for frame in booked] == list(range(1, UPDATES + 1))
    assert [frame.get("rolled_back_to") for frame in booked if "rolled_back_to" in frame] == ["step-000002"]
    published = [event["version"] for event in run.lines("events.jsonl") if event["event"] == "published"]
    if lives == 1:
        assert published == list(range(UPDATES + 1)), "each number once, in order"
    for folder in (run.path / "adapters").glob("v*-*"):
        version = int(folder.name[1:7])
        if version:
            assert booked[version - 1]["weights_hash"].startswith(folder.name[len("v000000-") :])
    assert not list((run.path / "adapters").glob("lost-*"))
    assert not [event for event in run.lines("events.jsonl") if event["event"] == "replayed_differently"]


@pytest.mark.parametrize("make", [chained, scripted_learner, pytest.param(tiny_learner, marks=pytest.mark.long)])
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", ["update", "roll_back", "save"])
async def test_a_learner_lost_around_a_roll_back_ends_with_the_weights_that_the_log_books(
    tmp_path: Path, call: str, after: bool, lag: int, make: Callable[[int], Any]
) -> None:
    death = Death(call, after=after)
    run = await turned_run(tmp_path / "lost", lag, make, death)
    assert death.happened, "the fault came"
    check_finished(run)
    check_one_truth(run)
    if lag == 0:
        whole = await turned_run(tmp_path / "whole", lag, make, None)
        assert final_weights(run.path) == final_weights(whole.path)


@pytest.mark.parametrize("make", [chained, scripted_learner, pytest.param(tiny_learner, marks=pytest.mark.long)])
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("call", ["update", "roll_back"])
async def test_a_run_that_is_killed_before_a_roll_back_is_booked_makes_it_when_it_is_resumed(
    tmp_path: Path, call: str, lag: int, make: Callable[[int], Any]
) -> None:
    """The update that the alarm turns back was never booked, so it is made again; the alarm must not be forgotten."""
    config = stop_config(tmp_path / "killed", lag, alarms={"entropy": "roll_back"})
    first = new_run(config, OnceLost(make(lag), Death(call, after=True)), random.Random(0))
    alarm_before_turning(first)
    with pytest.raises(AssertionError, match="killed"):  # a learner that nobody revives: the supervisor resumes the run
        await live(first)
    again = new_run(config, make(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)
    check_one_truth(again, lives=2)
    if lag == 0:
        whole = await turned_run(tmp_path / "whole", lag, make, None)
        assert final_weights(again.path) == final_weights(whole.path)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("step", [3, 4, 5, 6])
@pytest.mark.parametrize("reason", ["ctrl_c", "loop", "kill"])
async def test_skipped_updates_are_counted_over_a_stop(tmp_path: Path, reason: str, step: int, lag: int) -> None:
    """Three in a row are three, whatever ended a life between them."""

    def skipping(lag: int) -> ChainedLearner:
        return ChainedLearner(lag, delay_s=0.004, skips=(3, 4, 5))

    config = stop_config(tmp_path / "stopped", lag)
    first = new_run(config, skipping(lag), random.Random(0))
    await live(first, Moment("updating", step - 1), reason)
    again = new_run(config, skipping(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)
    turned = [event["headline"] for event in again.lines("events.jsonl") if event["event"] == "rolled_back"]
    assert len(turned) == 1
    assert "3 updates in a row were skipped, the last because a tensor is not finite" in turned[0]
    if lag == 0:
        whole = new_run(stop_config(tmp_path / "whole", lag), skipping(lag), random.Random(0))
        assert await live(whole) is None
        assert final_weights(again.path) == final_weights(whole.path)


@pytest.mark.parametrize("reason", ["ctrl_c", "kill"])
async def test_a_pause_that_a_stop_overtook_is_obeyed_by_the_next_life_once(tmp_path: Path, reason: str) -> None:
    config = stop_config(tmp_path, 1)
    first = new_run(config, chained(1), random.Random(0))

    class PausesAndStops:
        def watch(self, kind: str, line: dict[str, Any]) -> None:
            if kind == "metrics" and line["step"] == 3:
                first.controller.health.apply(Alarm("entropy", Action.PAUSE, "entropy fell"))
                STOPS[reason](first, drives)

        def show_event(self, event: Event) -> None: ...

        def show_groups(self, groups: Sequence[ScoredGroup]) -> None: ...

        def close(self) -> None: ...

    first.recorder.add_watcher(PausesAndStops())
    drives: asyncio.Task[Any] = asyncio.ensure_future(live(first))
    await asyncio.gather(drives, return_exceptions=True)
    assert first.controller.step == 3
    again = new_run(config, chained(1), random.Random(0))
    error = await live(again)
    assert isinstance(error, RunStopped)
    assert "entropy fell (alarms.entropy = 'pause'" in str(error)
    assert again.controller.step == 3
    last = new_run(config, chained(1), random.Random(0))
    assert await live(last) is None
    check_finished(last)


def damage(checkpoint: Path) -> None:
    for file in (checkpoint / "learner").iterdir():
        file.write_bytes(b"not what was written")


@pytest.mark.parametrize("make", [chained, pytest.param(tiny_learner, marks=pytest.mark.long)])
@pytest.mark.parametrize("spoil", [damage, shutil.rmtree])
async def test_a_logged_roll_back_is_made_again_although_its_checkpoint_was_spoilt_since(
    tmp_path: Path, spoil: Callable[[Path], None], make: Callable[[int], Any]
) -> None:
    """The weights that it goes back to are those of an update that is made again on the way."""
    config = stop_config(tmp_path / "spoilt", 0, alarms={"entropy": "roll_back"})
    first = new_run(config, make(0), random.Random(0))
    alarm_before_turning(first)
    await live(first, Moment("updating", TURNED), "kill")
    for checkpoint in (first.path / "checkpoints").glob("step-*"):
        if checkpoint.name != "step-000000":
            spoil(checkpoint)
    again = new_run(config, make(0), random.Random(0))
    assert await live(again) is None
    check_finished(again)
    check_one_truth(again, lives=2)
    whole = await turned_run(tmp_path / "whole", 0, make, None)
    assert final_weights(again.path) == final_weights(whole.path)
    assert not [path for path in (again.path / "checkpoints").iterdir() if path.name.startswith(".")]
