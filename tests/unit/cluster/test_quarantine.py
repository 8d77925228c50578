"""Problems that harm what touches them are found, named and left out; innocent ones that were beside them are not."""

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ActorLostError, EngineError, RunStopped
from contracts.ports import Task
from contracts.problem import Lease, Problem
from tests.fakes import CountingTask, FakeWorker
from tests.harness import Run, make_config


class FewProblems(CountingTask):
    """Five problems, over and over."""

    def train_problem(self, index: int) -> Problem:
        return super().train_problem(index % 5)

    @property
    def num_train(self) -> int | None:
        return 5


def poison(lease: Lease) -> Exception | None:
    return EngineError("the engine crashed") if lease.problem.problem_id == "3" else None


def run_on(tmp_path: Path, task: Task, **fakes: Any) -> Run:
    return Run(make_config(tmp_path, lag=1, updates=6, cluster={"worker_restarts": 100}), task=task, **fakes)


async def test_a_problem_that_crashes_its_worker_twice_alone_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    run = run_on(tmp_path, FewProblems(), workers=[FakeWorker("w0", fault=poison)])
    await run.run()
    events = run.lines("ledger/events.jsonl")
    assert [e["problem_id"] for e in events if e["reason"] == "quarantined"] == ["3"]
    assert {e["problem_id"] for e in events if e["reason"] == "in quarantine"} == {"3"}
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 24
    headlines = [line["headline"] for line in run.lines("events.jsonl") if line["event"] == "quarantined"]
    assert headlines == ["problem 3 is not issued again in this run; it did harm twice, last: the engine crashed"]


async def test_a_suspect_is_tried_alone_so_that_those_beside_it_are_not_blamed(tmp_path: Path) -> None:
    run = run_on(tmp_path, FewProblems(), workers=[FakeWorker("w0", fault=poison)])
    await run.run()
    calls = [event[3] for event in run.events if event[0] == "sample" and 3 in event[3]]
    assert len(calls[0]) > 1
    assert calls[1:] == [(3,), (3,)]


async def test_workers_that_die_at_random_put_nothing_into_quarantine(tmp_path: Path) -> None:
    deaths = iter(range(4))

    def dies(lease: Lease) -> Exception | None:
        return ActorLostError("killed") if lease.attempt == 0 and next(deaths, None) is not None else None

    run = run_on(tmp_path, CountingTask(), workers=[FakeWorker(f"w{i}", fault=dies) for i in range(6)])
    await run.run()
    assert all(e["reason"] == "" for e in run.lines("ledger/events.jsonl"))


async def test_a_run_that_is_taken_up_remembers_its_quarantine(tmp_path: Path) -> None:
    run = run_on(tmp_path, FewProblems(), workers=[FakeWorker("w0", fault=poison)])
    await run.run()
    again = Run(make_config(tmp_path, lag=1, updates=8, cluster={"worker_restarts": 100}), task=FewProblems())
    await again.run()
    assert not [event for event in again.events if event[0] == "sample" and any(lease % 5 == 3 for lease in event[3])]


async def test_a_task_of_nothing_but_poison_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    broken = FakeWorker("w0", fault=lambda lease: EngineError("the engine crashed"))
    run = run_on(tmp_path, FewProblems(), workers=[broken])
    with pytest.raises(RunStopped, match="every problem of the task is in quarantine"):
        await run.run()
