"""Evaluations under way: a halt ends their wait, what goes wrong with them is told at once, and a stop loses none."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config.alarms import AlarmSettings
from cluster.record.events.event import Event
from cluster.record.events.training import EvaluationFailed, EvaluationInvalid
from cluster.watch.alarms.watcher import AlarmWatcher
from contracts.errors import EngineError, RunStopped
from contracts.problem import Lease
from contracts.reports import EvalReport
from contracts.rollout import RolloutGroup
from contracts.verdict import Invalid
from tests.fakes import FakeWorker
from tests.harness import Run
from tests.unit.cluster.stops import (
    UPDATES,
    ChainedLearner,
    Moment,
    Watch,
    check_finished,
    check_stopped,
    live,
    new_run,
    stop_config,
)
from tests.unit.cluster.test_alarms import HACKED, run


class Booked(Moment):
    """As soon as `step` updates are booked, whatever the run is in."""

    async def comes(self, run: Run, watch: Watch) -> None:
        while run.controller.step < self.step:
            await asyncio.sleep(0)


HALTS = {"halt": "4 KB of disk are free", "pause": "entropy fell"}


def evaluation_of(version: int) -> Callable[[Lease], bool]:
    return lambda lease: lease.lease_id < 0 and lease.policy_version == version


def slow(run: Run, version: int) -> None:
    """Its evaluation does not end in this life."""
    for worker in run.workers.ready:
        worker.delay_s = lambda lease: 30.0 if evaluation_of(version)(lease) else 0.0


def named(run: Run, event: str) -> list[dict[str, Any]]:
    return [line for line in run.lines("events.jsonl") if line["event"] == event]


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("reason", sorted(HALTS))
@pytest.mark.parametrize("version", [3, UPDATES])
async def test_a_halt_while_only_evaluations_run_stops_the_run_and_the_next_life_makes_them(
    tmp_path: Path, version: int, reason: str, lag: int
) -> None:
    config = stop_config(tmp_path, lag)
    run = new_run(config, ChainedLearner(lag), random.Random(0))
    slow(run, version)
    error = await live(run, Moment("evaluating", UPDATES, ticks=80), reason)
    assert isinstance(error, RunStopped)
    assert HALTS[reason] in str(error)
    check_stopped(run)
    assert run.controller.step == UPDATES
    assert version not in [line["step"] for line in run.lines("eval.jsonl")]
    again = new_run(config, ChainedLearner(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)


async def test_a_halt_that_the_very_last_evaluation_brings_is_raised_and_a_resume_finds_the_run_finished(
    tmp_path: Path,
) -> None:
    config = stop_config(tmp_path, 1)
    run = new_run(config, ChainedLearner(1), random.Random(0))

    class AtTheEnd:
        def watch(self, kind: str, line: dict[str, Any]) -> None:
            if kind == "eval" and line["step"] == UPDATES:
                run.controller.health.halt("the last evaluation says so")

        def show_event(self, event: Event) -> None: ...

        def show_groups(self, groups: Sequence[Any]) -> None: ...

        def close(self) -> None: ...

    run.recorder.add_watcher(AtTheEnd())
    error = await live(run)
    assert "the last evaluation says so" in str(error)
    again = new_run(config, ChainedLearner(1), random.Random(0))
    assert await live(again) is None
    check_finished(again)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("reason", ["ctrl_c", "loop", "kill"])
@pytest.mark.parametrize("step", [4, 5, 6])
async def test_an_evaluation_that_was_under_way_is_made_by_the_next_life_however_far_the_run_is(
    tmp_path: Path, step: int, reason: str, lag: int
) -> None:
    """Its adapter must not be pruned while the updates since the checkpoint are made again."""
    config = stop_config(tmp_path, lag, cluster={"checkpoint_every_updates": 0, "adapters_on_disk": 2})
    run = new_run(config, ChainedLearner(lag, delay_s=0.004), random.Random(0))
    slow(run, 3)
    await live(run, Booked("", step), reason)
    again = new_run(config, ChainedLearner(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)


async def test_evaluations_that_a_resume_asks_for_too_late_are_one_incident(tmp_path: Path) -> None:
    config = stop_config(tmp_path, 1, cluster={"adapters_on_disk": 1})
    first = new_run(config, ChainedLearner(1, delay_s=0.004), random.Random(0))
    await live(first, Booked("", 5), "ctrl_c")
    often = stop_config(tmp_path, 1, cluster={"adapters_on_disk": 1}, eval={"every_updates": 1})
    again = new_run(often, ChainedLearner(1), random.Random(0))
    assert await live(again) is None
    [told] = named(again, "evaluation_skipped")
    assert "versions 1, 2" in told["headline"]
    assert again.controller.step == UPDATES


async def test_an_evaluation_that_breaks_is_told_at_once_raised_at_the_end_and_made_by_the_next_life(
    tmp_path: Path,
) -> None:
    config = stop_config(tmp_path, 1)
    run = new_run(config, ChainedLearner(1, delay_s=0.004), random.Random(0))
    record, told_at = run.recorder.evaluation, []

    def broken(report: EvalReport) -> None:
        if report.step == 3:
            raise TypeError("a report of another shape")
        record(report)

    def look(event: Event) -> None:
        if isinstance(event, EvaluationFailed):
            told_at.append(run.controller.step)

    run.recorder.evaluation = broken  # type: ignore[method-assign]
    run.recorder.add_watcher(Listener(look))
    with pytest.raises(AssertionError, match="a report of another shape"):
        await live(run)
    assert told_at
    assert told_at[0] < UPDATES
    [incident] = named(run, "evaluation_failed")
    assert "version 3" in incident["headline"]
    assert "TypeError: a report of another shape" in incident["headline"]
    again = new_run(config, ChainedLearner(1), random.Random(0))
    assert await live(again) is None
    check_finished(again)


async def test_what_broke_an_evaluation_is_not_lost_by_a_stop(tmp_path: Path) -> None:
    run = new_run(stop_config(tmp_path, 1), ChainedLearner(1, delay_s=0.004), random.Random(0))

    def broken(report: EvalReport) -> None:
        raise TypeError("a report of another shape")

    run.recorder.evaluation = broken  # type: ignore[method-assign]
    await live(run, Booked("", 4), "ctrl_c")
    assert run.controller.step < UPDATES
    assert {line["headline"].partition(":")[0] for line in named(run, "evaluation_failed")} >= {
        f"the evaluation of version {version} (after update {version}) ended with TypeError" for version in (0, 3)
    }


class Listener:
    """cluster.record.recorder.Watcher of events alone."""

    def __init__(self, heard: Callable[[Event], None]) -> None:
        self._heard = heard

    def watch(self, kind: str, line: dict[str, Any]) -> None: ...

    def show_event(self, event: Event) -> None:
        self._heard(event)

    def show_groups(self, groups: Sequence[Any]) -> None: ...

    def close(self) -> None: ...


class Unjudged(FakeWorker):
    """Its verifier raises on held-out problems."""

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        groups = await super().sample(leases)
        if leases[0].lease_id >= 0:
            return groups
        why = Invalid("the verifier raised ZeroDivisionError: division by zero")
        return [replace(g, rollouts=tuple(replace(r, verdict=why) for r in g.rollouts)) for g in groups]


async def test_held_out_answers_that_cannot_be_judged_are_told_while_the_evaluation_runs(tmp_path: Path) -> None:
    config = stop_config(tmp_path, 1, eval={"problems": 5})
    run = new_run(config, ChainedLearner(1), random.Random(0))
    run.workers.ready = [Unjudged(f"w{i}") for i in range(2)]
    done_when_told: list[int] = []

    def look(event: Event) -> None:
        if isinstance(event, EvaluationInvalid):
            done_when_told.append(len(run.recorder.evaluations_done()))

    run.recorder.add_watcher(Listener(look))
    assert await live(run) is None
    assert done_when_told[0] == 0, "before the first evaluation was done"
    told = named(run, "evaluation_invalid")
    assert [line["version"] for line in told] == [0, 3, 6], "once for each version, not for each problem"
    assert "ZeroDivisionError: division by zero" in told[0]["headline"]
    assert "counts as wrong" in told[0]["headline"]
    incidents = [path for path in (run.path / "incidents").iterdir() if "evaluation_invalid" in path.name]
    assert len(incidents) == 1, "the first is for a person; the others are events"
    assert [line["invalid"] for line in run.lines("eval.jsonl")] == [5, 5, 5]


async def test_a_held_out_problem_whose_every_attempt_failed_is_told_at_once(tmp_path: Path) -> None:
    config = stop_config(tmp_path, 1, cluster={"stop_after_failures": 99, "worker_restarts": 50})

    def stumbles(lease: Lease) -> Exception | None:
        return EngineError("the engine stumbled") if lease.problem.problem_id == "held-1" else None

    run = new_run(config, ChainedLearner(1), random.Random(0))
    for worker in run.workers.ready:
        worker.fault = stumbles
    assert await live(run) is None
    told = named(run, "evaluation_invalid")
    assert [line["version"] for line in told] == [0, 3, 6]
    assert "held-1" in told[0]["headline"]
    assert "the engine stumbled" in told[0]["headline"]


def test_an_alarm_that_the_last_evaluation_raises_is_raised_with_it(tmp_path: Path) -> None:
    """No update follows whose line would be looked at."""
    heard: list[str] = []
    settings = AlarmSettings(train_up_eval_down="pause")
    watcher = AlarmWatcher(settings, lambda alarm: heard.append(f"{alarm.name} {alarm.action}"), run(), HACKED[:-1])
    watcher.watch("eval", HACKED[-1])
    assert heard == ["train_up_eval_down pause"]
