"""The controller's loops on fakes: order, slots, lag, retries, late memory, evaluation, stopping."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.flow.drive import drive
from contracts.adapter import Adapter
from contracts.errors import ActorLostError, RunStopped
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import FinishReason, RolloutGroup, ScoredGroup
from tests.fakes import FakeLearner, FakeMemory, FakeWorker, engine_error
from tests.harness import Run, make_config


async def test_without_lag_sampling_scoring_updating_alternate_in_lease_order(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=2))
    await run.run()
    assert run.events == [
        ("adopt", "w0", 0),
        ("sample", "w0", 0, (0, 1)),
        ("sample", "w0", 0, (2, 3)),
        ("score", (0, 1, 2, 3)),
        ("update", 1, (0, 1, 2, 3)),
        ("adopt", "w0", 1),
        ("sample", "w0", 1, (4, 5)),
        ("sample", "w0", 1, (6, 7)),
        ("score", (4, 5, 6, 7)),
        ("update", 2, (4, 5, 6, 7)),
        ("adopt", "w0", 2),
        ("end", "w0"),
    ]


async def test_without_lag_two_workers_of_different_speed_give_the_same_batches(tmp_path: Path) -> None:
    slow_first = [FakeWorker("w0", delay_s=lambda lease: 0.02), FakeWorker("w1")]
    run = Run(make_config(tmp_path, updates=2), workers=slow_first)
    await run.run()
    assert [event for event in run.events if event[0] == "score"] == [("score", (0, 1, 2, 3)), ("score", (4, 5, 6, 7))]


async def test_with_lag_workers_go_on_while_the_learner_updates(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, lag=2, updates=6), learner=FakeLearner(2, delay_s=0.02))
    await run.run()
    first_update = run.events.index(next(event for event in run.events if event[0] == "update"))
    sampled_before = [event for event in run.events[:first_update] if event[0] == "sample"]
    assert len(sampled_before) > 2, "more than the first batch was sampled before the first update ended"
    lines = run.lines("metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert max(line["lag_max"] for line in lines) in (1, 2)


async def test_every_issued_problem_is_accounted_for_at_the_end(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, lag=1, updates=5))
    await run.run()
    ledger = run.lines("metrics.jsonl")[-1]["ledger"]
    assert ledger == {"issued": 20, "trained": 20, "dropped": 0, "failed": 0, "in_flight": 0, "buffered": 0}


async def test_a_failed_call_is_tried_again_and_then_counted_as_failed(tmp_path: Path) -> None:
    def only_lease_1_fails(lease: Lease) -> Exception | None:
        return engine_error(lease) if lease.lease_id == 1 else None

    config = make_config(tmp_path, updates=2, actors={"max_batch_rows": 2})
    run = Run(config, workers=[FakeWorker(fault=only_lease_1_fails)])
    await run.run()
    tries = [event for event in run.events if event[0] == "sample" and event[3] == (1,)]
    assert len(tries) == config.cluster.lease_attempts
    ledger = run.lines("metrics.jsonl")[-1]["ledger"]
    assert (ledger["failed"], ledger["trained"], ledger["issued"]) == (1, 8, 9)
    assert run.lines("metrics.jsonl")[-1]["dropped_or_failed"] == {"quarantined": 1}


async def test_a_group_that_cannot_train_is_dropped_with_its_reason_and_replaced(tmp_path: Path) -> None:
    def lease_2_times_out(lease: Lease) -> FinishReason:
        return FinishReason.TIMEOUT if lease.lease_id == 2 else FinishReason.STOP

    run = Run(make_config(tmp_path, updates=2), workers=[FakeWorker(finish=lease_2_times_out)])
    await run.run()
    last = run.lines("metrics.jsonl")[-1]
    assert last["ledger"]["dropped"] == 1
    assert last["ledger"]["trained"] == 8
    assert last["dropped_or_failed"] == {"fewer than two trainable rollouts": 1}
    assert len(list((run.path / "rollouts").glob("*-dropped-*.parquet"))) == 1


async def test_nothing_but_failures_stops_the_run_and_says_why(tmp_path: Path) -> None:
    config = make_config(tmp_path, cluster={"stop_after_failures": 4})
    run = Run(config, workers=[FakeWorker(fault=engine_error)])
    with pytest.raises(RunStopped, match="4 problems in a row failed.*the engine stumbled"):
        await run.run()


async def test_a_lost_worker_gives_its_leases_back_and_the_other_one_finishes(tmp_path: Path) -> None:
    def dies(lease: Lease) -> Exception | None:
        return ActorLostError("worker w0 died")

    run = Run(make_config(tmp_path, updates=3), workers=[FakeWorker("w0", fault=dies), FakeWorker("w1")])
    await run.run()
    ledger = run.lines("metrics.jsonl")[-1]["ledger"]
    assert (ledger["trained"], ledger["failed"], ledger["in_flight"]) == (12, 0, 0)
    assert [line["event"] for line in run.lines("events.jsonl")].count("worker_lost") == 1


async def test_late_memory_under_zero_trains_whole_groups_without_bonus_and_counts_them(tmp_path: Path) -> None:
    config = make_config(tmp_path, updates=1, memory={"deadline_s": 0.05, "late_policy": "zero"})
    run = Run(config, memory=FakeMemory(delay_s=0.3))
    await run.run()
    batch = run.learner.batches[0]
    assert all(scored.late and not scored.bonus_G.any() for scored in batch)
    assert run.lines("metrics.jsonl")[-1]["memory_late"] == 4


async def test_groups_that_went_on_late_are_remembered_in_their_order_once(tmp_path: Path) -> None:
    """Memory is busy with the first groups when the others pass their deadline: at 57c9e8c it never heard of those."""
    config = make_config(tmp_path, lag=2, updates=6, memory={"deadline_s": 0.02, "late_policy": "zero"})
    run = Run(config, memory=FakeMemory(delay_s=0.15), learner=FakeLearner(2, delay_s=0.05))
    await run.run()
    late = [line["lease"] for line in run.lines("events.jsonl") if line["event"] == "memory_late"]
    told = [lease for event in run.events if event[0] == "score" for lease in event[1]]
    assert len(late) > 6
    assert len(told) == len(set(told))
    unanswered = [group.lease_id for group in run.controller.stages.scoring.unanswered]
    assert sorted({*told, *unanswered}) == list(range(24)), (
        "every group was told, or still stands in the queue at the end"
    )
    assert len(set(late) & set(told)) > len(set(late)) / 2
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 24, "its slots did not wait for memory"


async def test_late_memory_under_wait_is_waited_for_and_counted(tmp_path: Path) -> None:
    config = make_config(tmp_path, updates=1, memory={"deadline_s": 0.05, "late_policy": "wait"})
    run = Run(config, memory=FakeMemory(delay_s=0.3))
    await run.run()
    assert all(not scored.late and scored.bonus_G.all() for scored in run.learner.batches[0])
    line = run.lines("metrics.jsonl")[-1]
    assert line["memory_late"] == 4
    assert line["wait_memory_s"] > line["wait_rollouts_s"]


@pytest.mark.parametrize("silent", [{"profile": "remember"}, {"exploit_weight": 0.0, "explore_weight": 0.0}])
async def test_who_pays_no_bonus_does_not_wait_for_memory_and_remembers_all(
    tmp_path: Path, silent: dict[str, Any]
) -> None:
    """Memory answers nothing until the last update is made: the learner never asks, and the run's end does."""
    run = Run(make_config(tmp_path, lag=2, updates=6, memory=silent), memory=HeldMemory(), learner=FakeLearner(2))
    life = asyncio.ensure_future(run.run())
    async with asyncio.timeout(20):
        while run.controller.step < 6:
            await asyncio.sleep(0.005)
    run.memory.may_answer.set()
    await life
    told = [lease for event in run.events if event[0] == "score" for lease in event[1]]
    assert (sorted(told), run.controller.stages.scoring.unanswered) == (list(range(24)), [])
    assert run.lines("metrics.jsonl")[-1]["memory_late"] == 0
    assert not [line for line in run.lines("events.jsonl") if line["event"] == "memory_late"]
    assert all(not scored.late and not scored.bonus_G.any() for batch in run.learner.batches for scored in batch)


async def test_a_stop_while_memory_alone_is_behind_is_no_end_of_the_run_and_a_resume_tells_it_the_rest(
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path, lag=2, updates=6, memory={"profile": "remember"}, eval={"problems": 2})
    run = Run(config, memory=HeldMemory(), learner=FakeLearner(2))
    life = asyncio.ensure_future(drive(run.controller, run.recorder, lambda: None))
    (run.path / "eval.jsonl").touch()
    async with asyncio.timeout(20):
        while len(run.lines("eval.jsonl")) < 2 or run.controller.status()["phase"] != "remembering":
            await asyncio.sleep(0.005)
    await turns()
    run.controller.stop()
    await turns()
    run.memory.may_answer.set()
    await life
    run.close()
    assert run.controller.stopped_early
    first = [lease for event in run.events if event[0] == "score" for lease in event[1]]
    assert 0 < len(first) < 24, "the call under way was finished, no other was begun"
    assert [line["step"] for line in run.lines("eval.jsonl")] == [0, 6]
    again = Run(config, learner=FakeLearner(2))
    async with asyncio.timeout(20):
        await drive(again.controller, again.recorder, lambda: None)
    again.close()
    assert (again.controller.stopped_early, again.controller.status()["phase"]) == (False, "done")
    told = [lease for event in again.events if event[0] == "score" for lease in event[1]]
    assert sorted([*first, *told]) == list(range(24)), "each of them once"
    assert again.memory.version == 24
    assert (again.learner.batches, len(again.lines("eval.jsonl"))) == ([], 2), "nothing else was made again"


async def turns() -> None:
    """Of the loop: whatever waits for nothing else gets on."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_stop_that_comes_when_all_is_done_leaves_a_finished_run(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, lag=2, updates=2, memory={"profile": "remember"}), learner=FakeLearner(2))
    await run.run()
    run.controller.stop()
    assert not run.controller.stopped_early


async def test_with_lag_0_every_group_waits_for_memory_paid_or_not(tmp_path: Path) -> None:
    """Memory's order, and so its bytes, are the run's."""
    run = Run(make_config(tmp_path, updates=3, memory={"profile": "remember"}))
    await run.run()
    assert [event[0] for event in run.events if event[0] in ("score", "update")] == ["score", "update"] * 3


class HeldMemory(FakeMemory):
    """Answers from the moment that it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        answer = await super().score(groups)
        await self.may_answer.wait()
        return answer


async def test_without_memory_groups_go_straight_to_the_learner(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=2, memory={"profile": "off"}), memory=None)
    await run.run()
    assert [event[0] for event in run.events].count("score") == 0
    assert run.lines("metrics.jsonl")[-1]["memory_episodes"] == 0


async def test_evaluation_runs_beside_training_on_its_exact_version_and_takes_no_slots(tmp_path: Path) -> None:
    config = make_config(tmp_path, lag=1, updates=4, eval={"problems": 6, "every_updates": 2})
    run = Run(config)
    await run.run()
    evals = run.lines("eval.jsonl")
    assert sorted(line["step"] for line in evals) == [0, 2, 4]
    assert all(line["policy_version"] == line["step"] and line["n"] == 6 for line in evals)
    eval_versions = {event[2] for event in run.events if event[0] == "sample" and event[3][0] < 0}
    assert eval_versions == {0, 2, 4}
    assert run.lines("metrics.jsonl")[-1]["ledger"]["issued"] == 16


async def test_a_worker_loads_the_version_of_an_evaluation_again_before_each_call(tmp_path: Path) -> None:
    """Newer versions may have pushed it out meanwhile: a worker keeps few."""
    config = make_config(tmp_path, lag=1, updates=6, eval={"problems": 6, "every_updates": 1})
    run = Run(config, workers=[FakeWorker(keep=1)])
    await run.run()
    calls = [i for i, event in enumerate(run.events) if event[0] == "sample" and event[3][0] < 0]
    assert len(calls) > 7, "some version in more than one call"
    assert [run.events[i - 1] for i in calls] == [("adopt", "w0", run.events[i][2]) for i in calls]


@pytest.mark.parametrize(("every", "kept"), [(4, [4, 6, 7]), (0, [0, 6, 7])])
async def test_the_adapter_that_the_newest_checkpoint_stands_for_stays_beside_the_newest_two(
    tmp_path: Path, every: int, kept: list[int]
) -> None:
    run = Run(make_config(tmp_path, updates=7, cluster={"checkpoint_every_updates": every}))
    await run.run()
    folders = [path.name for path in (run.path / "adapters").iterdir() if not path.name.startswith(".")]
    assert sorted(name[:7] for name in folders) == [f"v{version:06d}" for version in kept]


async def test_stop_finishes_the_update_under_way_and_skips_the_last_evaluation(tmp_path: Path) -> None:
    config = make_config(tmp_path, lag=1, updates=1000, eval={"problems": 2, "every_updates": 0})
    run = Run(config)
    task = asyncio.ensure_future(run.run())
    while run.controller.step < 3:
        await asyncio.sleep(0.001)
    run.controller.stop()
    await task
    assert 3 <= run.controller.step < 1000
    assert [line["step"] for line in run.lines("eval.jsonl")] == [0]


async def test_pass_at_k_and_the_generous_limit_are_measured_before_and_after(tmp_path: Path) -> None:
    settings = {
        "problems": 4,
        "every_updates": 0,
        "generous_max_new_tokens": 32,
        "pass_at_k": 3,
        "pass_at_k_problems": 2,
    }
    run = Run(make_config(tmp_path, updates=1, eval=settings))
    await run.run()
    kinds = [(line["step"], line["max_new_tokens"], line["k"], line["n"]) for line in run.lines("eval.jsonl")]
    assert kinds == [(s, *rest) for s in (0, 1) for rest in ((8, None, 4), (32, None, 4), (8, 3, 2))]
    assert run.lines("eval.jsonl")[2]["pass_at_k"] == 1.0, "the fake's second sample is right"


@dataclass
class LosingLearner(FakeLearner):
    """Its updates would hardly be left in merged bfloat16 weights."""

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report, adapter = await super().update(groups)
        return replace(report, merged_survival=0.06 * report.policy_version), adapter


@pytest.mark.parametrize(("lora_path", "sampled"), [("auto", [1.0, 1.0]), ("merged", [0.06, 0.12])])
async def test_what_samples_is_measured_and_a_lost_update_is_an_event(
    tmp_path: Path, lora_path: str, sampled: list[float]
) -> None:
    """On fakes, which read no engine: the settings of a run on a real model."""
    config = make_config(
        tmp_path, updates=2, model={"name": "base"}, actors={"engine": "transformers", "lora_path": lora_path}
    )
    run = Run(config, learner=LosingLearner(0))
    await run.run()
    lines = run.lines("metrics.jsonl")
    assert [line["sampled_survival"] for line in lines] == sampled
    assert [line["merged_survival"] for line in lines] == [0.06, 0.12]
    lost = [event for event in run.lines("events.jsonl") if event["event"] == "update_lost"]
    assert [(event["version"], event["survival"]) for event in lost] == (
        [(1, 0.06), (2, 0.12)] * (lora_path == "merged")
    )
