"""Workers join, leave, fall ill, refuse versions and are replaced while a run goes on (controller on fakes)."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.config import ActorSettings
from cluster.flow.worker_state import WorkerState, WorkerStatus
from cluster.record.incidents import headlines
from cluster.record.requests import RunControl, ask
from contracts.errors import ActorLostError, ConfigError, DataError, EngineError, LoadError, ProofError, RunStopped
from contracts.problem import Lease
from contracts.rollout import FinishReason
from tests.fakes import FakeLearner, FakeWorker
from tests.harness import Run, make_config


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def names(run: Run, kind: str) -> list[str]:
    return [event[1] for event in run.events if event[0] == kind]


@pytest.mark.parametrize(
    ("engine", "version", "rows", "room"),
    [
        ("scripted", 5, 0, 64),  # a batch engine takes a whole batch ..
        ("scripted", 5, 8, 0),  # .. when it has none in hand ..
        ("scripted", 4, 0, 0),  # .. and the newest version
        ("vllm", 5, 8, 64),  # 64 + one group of 8 at the door
        ("vllm", 4, 0, 72),  # goes on while it adopts, as far behind as may be
        ("vllm", 3, 0, 0),
        ("vllm", -1, 0, 0),
    ],
)
def test_room_of_a_seat(engine: str, version: int, rows: int, room: int) -> None:
    settings = ActorSettings.model_validate({"engine": engine})
    worker = WorkerState(FakeWorker(), "worker", settings, version=version, rows=rows)
    assert worker.capacity(newest=5, servable=5, staleness_budget=1, lag_left=2) == room


@pytest.mark.parametrize("engine", ["scripted", "vllm"])
@pytest.mark.parametrize(("newest", "lag_left", "works"), [(6, 1, True), (6, 0, False), (7, 1, False), (7, 2, True)])
def test_past_a_skipped_version_work_goes_on_while_its_groups_can_still_train(
    engine: str, newest: int, lag_left: int, works: bool
) -> None:
    worker = WorkerState(FakeWorker(), "worker", ActorSettings.model_validate({"engine": engine}), version=5)
    assert (worker.capacity(newest=newest, servable=5, staleness_budget=0, lag_left=lag_left) > 0) is works


@pytest.mark.parametrize("state", [WorkerStatus.UNHEALTHY, WorkerStatus.DRAINING, WorkerStatus.DEAD])
def test_only_a_serving_seat_takes_work(state: WorkerStatus) -> None:
    worker = WorkerState(FakeWorker(), "worker", ActorSettings(engine="scripted"), state=state, version=0)
    assert worker.capacity(0, 0, 0, 0) == 0


async def test_scaling_up_and_down_while_the_run_goes_on(tmp_path: Path) -> None:
    config = make_config(tmp_path, lag=1, updates=10_000)
    slow = FakeLearner(1, delay_s=0.002)
    run = Run(config, learner=slow, workers=[FakeWorker("w0", delay_s=lambda lease: 0.002)])
    task = asyncio.ensure_future(run.run())
    await until(lambda: run.controller.step > 2)
    run.controller.fleet.scale(3)
    await until(lambda: run.controller.fleet.serving == 3)
    await until(lambda: {"w0", "worker-1", "worker-2"} <= {e[1] for e in run.events if e[0] == "sample"})
    run.controller.fleet.scale(1)
    await until(lambda: len(names(run, "end")) == 2)
    assert set(names(run, "end")) == {"worker-1", "worker-2"}, "the youngest leave"
    step = run.controller.step
    await until(lambda: run.controller.step > step + 3)
    run.controller.stop()
    await task
    ledger = run.lines("metrics.jsonl")[-1]["ledger"]
    assert (ledger["failed"], ledger["dropped"]) == (0, 0), "nothing is lost by leaving"


async def test_a_worker_that_does_not_finish_in_time_gives_its_leases_back_when_it_leaves(tmp_path: Path) -> None:
    config = make_config(tmp_path, lag=1, updates=6)
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"drain_s": 0.02})})
    stuck = FakeWorker("w1", delay_s=lambda lease: 100.0)
    run = Run(config, workers=[FakeWorker("w0", delay_s=lambda lease: 0.005), stuck])
    task = asyncio.ensure_future(run.run())
    run.controller.fleet.scale(2)
    await until(lambda: any(e[0] == "sample" and e[1] == "w1" for e in run.events))
    run.controller.fleet.scale(1)
    await task
    given = next(e[3] for e in run.events if e[0] == "sample" and e[1] == "w1")
    by_w0 = {i for e in run.events if e[0] == "sample" and e[1] == "w0" for i in e[3]}
    assert set(given) <= by_w0
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 24


async def test_workers_of_two_kinds_serve_one_run_each_with_its_own_window(tmp_path: Path) -> None:
    pools = [{"name": "big", "num_workers": 1}, {"name": "small", "num_workers": 2, "max_batch_rows": 2}]
    run = Run(make_config(tmp_path, lag=1, updates=6, actors={"pools": pools}), workers=[])
    await run.run()
    sizes = {(event[1].split("-")[0], len(event[3])) for event in run.events if event[0] == "sample"}
    assert ("small", 1) in sizes
    assert ("small", 2) not in sizes, "a window of two rollouts holds one group"
    assert {name for name, _ in sizes} == {"big", "small"}
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 24


async def test_lost_workers_are_replaced_and_the_run_finishes(tmp_path: Path) -> None:
    deaths = iter([ActorLostError("worker died"), ActorLostError("worker died again")])
    run = Run(make_config(tmp_path, updates=4), workers=[FakeWorker("w0", fault=lambda lease: next(deaths, None))] * 3)
    await run.run()
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 16
    incidents = [json.loads(path.read_text()) for path in sorted((run.path / "incidents").iterdir())]
    assert [(i["incident"], i["headline"], i["replaced"]) for i in incidents] == [
        ("worker_lost", "worker died; process 1 is gone", True),
        ("worker_lost", "worker died again; process 1 is gone", True),
    ]


BAD_CARD = DataError("vLLM cannot serve the model: CUDA error: uncorrectable ECC error encountered")


async def test_one_bad_gpu_of_64_does_not_end_the_start(tmp_path: Path) -> None:
    """It fails at once, and so does what is started in its place, while the others still load."""
    bad = [FakeWorker("bad", start_fault=BAD_CARD) for _ in range(7)]
    good = [FakeWorker(f"w{i}", start_s=0.2) for i in range(63)]
    config = make_config(tmp_path, updates=4, actors={"num_workers": 64})
    run = Run(config, workers=[bad[0], *good, *bad[1:]])
    await run.run()
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 16
    lost = [line for line in run.lines("events.jsonl") if line["event"] == "worker_lost"]
    assert [line["replaced"] for line in lost] == [True] * 6 + [False]
    assert "uncorrectable ECC" in lost[0]["headline"]


@pytest.mark.parametrize("workers", [1, 2, 64])
async def test_what_none_of_the_first_workers_can_load_ends_the_start_with_its_own_words(
    workers: int, tmp_path: Path
) -> None:
    config = make_config(tmp_path, actors={"num_workers": workers})
    run = Run(config, workers=[FakeWorker(f"w{i}", start_fault=BAD_CARD) for i in range(workers + 10)])
    with pytest.raises(DataError, match="uncorrectable ECC"):
        await run.run()


async def test_a_kind_that_cannot_load_ends_the_start_before_any_other_serves(tmp_path: Path) -> None:
    pools = [{"name": "big", "num_workers": 2}, {"name": "small", "num_workers": 1}]
    run = Run(
        make_config(tmp_path, actors={"pools": pools}),
        workers=[
            FakeWorker("b0", start_fault=BAD_CARD),
            FakeWorker("b1", start_fault=BAD_CARD),
            FakeWorker("s", start_s=9),
        ],
    )
    with pytest.raises(DataError, match="uncorrectable ECC"):
        await run.run()


async def test_below_min_workers_the_run_stops_with_the_last_reason(tmp_path: Path) -> None:
    config = make_config(tmp_path, cluster={"worker_restarts": 2, "lease_attempts": 100})
    run = Run(config, workers=[FakeWorker("w0", fault=lambda lease: ActorLostError("no more GPU"))] * 9)
    with pytest.raises(RunStopped, match=r"0 rollout workers are left.*2 replacements.*no more GPU"):
        await run.run()
    assert run.workers.made == 3, "the first and its two replacements"


async def test_a_failed_call_makes_a_suspect_that_goes_on_once_it_passes_its_health_check(tmp_path: Path) -> None:
    faults = iter([EngineError("out of memory")])
    run = Run(make_config(tmp_path, updates=2), workers=[FakeWorker("w0", fault=lambda lease: next(faults, None))])
    await run.run()
    assert names(run, "health") == ["w0"]
    assert run.workers.made == 1


async def test_a_suspect_that_fails_its_health_check_is_replaced(tmp_path: Path) -> None:
    sick = FakeWorker("w0", fault=lambda lease: EngineError("out of memory"), sick=True)
    run = Run(make_config(tmp_path, updates=2), workers=[sick])
    await run.run()
    assert run.workers.made == 2
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 8


def refusing(*versions: int) -> Callable[[int], Exception | None]:
    def refuse(version: int) -> Exception | None:
        return ProofError(f"log-probs of v{version} differ by 0.5") if version in versions else None

    return refuse


def incidents(run: Run) -> list[str]:
    return [path.stem.split("-", 1)[1] for path in sorted((run.path / "incidents").iterdir())]


async def test_a_version_that_the_only_worker_refuses_twice_is_skipped_where_there_is_lag(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, lag=1, updates=4), workers=[FakeWorker("w0", refuse=refusing(2))])
    await run.run()
    assert run.workers.made == 1, "the bytes are the same for any other worker"
    assert names(run, "refuse") == ["w0", "w0"], "fresh bytes once"
    assert incidents(run) == ["version_refused", "version_refused", "version_skipped"]
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 16
    assert [e for e in run.events if e[0] == "sample" and e[2] == 2] == []


async def test_without_lag_the_run_stops_for_tolerance_and_says_what_to_change(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=3), workers=[FakeWorker("w0", refuse=refusing(1))])
    with pytest.raises(
        RunStopped, match=r"version 1 is skipped, no version is left .*no worker's fault.*v1 differ by 0.5"
    ):
        await run.run()
    assert run.workers.made == 1
    assert names(run, "refuse") == ["w0", "w0"]


async def test_a_stop_for_tolerance_resumes_once_the_version_is_proven(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=3), workers=[FakeWorker("w0", refuse=refusing(1))])
    with pytest.raises(RunStopped):
        await run.run()
    again = Run(make_config(tmp_path, updates=3))
    await again.run()
    assert again.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 12


async def test_when_every_later_version_is_refused_the_run_stops_at_the_lag_bound(tmp_path: Path) -> None:
    workers = [FakeWorker(f"w{i}", refuse=refusing(*range(2, 100))) for i in range(2)]
    config = make_config(tmp_path, lag=2, updates=50, actors={"num_workers": 2})
    run = Run(config, workers=workers)
    with pytest.raises(RunStopped, match=r"learner.max_policy_lag = 2 allows nothing older"):
        await run.run()
    assert run.workers.made == 2, "no worker is retired for it"
    assert "worker_lost" not in incidents(run)
    assert run.learner.version == 4, "versions 2 and 3 were skipped, 4 is one too many"


async def test_version_0_that_nobody_can_prove_stops_the_run(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, lag=2), workers=[FakeWorker("w0", refuse=refusing(0))])
    with pytest.raises(RunStopped, match="version 0 is skipped"):
        await run.run()
    assert run.workers.made == 1


async def test_a_worker_that_alone_refuses_what_others_prove_is_retired(tmp_path: Path) -> None:
    bad = FakeWorker("w0", refuse=refusing(1))
    good = FakeWorker("w1", delay_s=lambda lease: 0.01)
    run = Run(make_config(tmp_path, updates=3, actors={"num_workers": 2}), workers=[bad, good])
    await run.run()
    assert names(run, "refuse") == ["w0", "w0"]
    assert run.workers.made == 3, "replaced"
    assert incidents(run) == ["version_refused", "version_refused", "worker_lost"]
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 12


async def test_a_skipped_version_is_not_evaluated_and_an_incident_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path, lag=1, updates=4, eval={"problems": 3, "every_updates": 2, "pass_at_k": 0})
    run = Run(config, workers=[FakeWorker("w0", refuse=refusing(2))])
    await run.run()
    assert incidents(run) == ["version_refused", "version_refused", "version_skipped", "evaluation_skipped"]
    assert [line["policy_version"] for line in run.lines("eval.jsonl")] == [0, 4]


POOLS = [{"name": "exact", "num_workers": 1}, {"name": "coarse", "num_workers": 2}]
"""The first worker is exact's, the next two are coarse's."""


def of_two_pools(
    exact: Callable[[int], Exception | None], coarse: Callable[[int], Exception | None]
) -> list[FakeWorker]:
    """The exact one is slow, so that the others have work whenever they may have it."""
    return [
        FakeWorker("exact", refuse=exact, delay_s=lambda lease: 0.005),
        FakeWorker("coarse-1", refuse=coarse),
        FakeWorker("coarse-2", refuse=coarse),
    ]


@pytest.mark.parametrize("lag", [0, 2])
async def test_what_one_pool_proves_and_another_refuses_is_no_workers_fault(tmp_path: Path, lag: int) -> None:
    """float32 proves what bfloat16 has to refuse: nobody is retired, and each pool serves what it can."""
    config = make_config(
        tmp_path, lag=lag, updates=5, actors={"pools": POOLS}, eval={"problems": 3, "every_updates": 2, "pass_at_k": 0}
    )
    run = Run(config, workers=of_two_pools(refusing(), refusing(2)))
    await run.run()
    assert run.workers.made == 3, "nobody is retired"
    assert set(incidents(run)) == {"version_refused", "version_skipped"}
    [skip] = [line for line in run.lines("events.jsonl") if line["event"] == "version_skipped"]
    assert skip["pool"] == "coarse"
    assert {e[1] for e in run.events if e[0] == "sample" and e[2] == 2} == {"exact"}, (
        "the pool that proved it serves it"
    )
    assert {e[1] for e in run.events if e[0] == "adopt" and e[2] == 5} == {"exact", "coarse-1", "coarse-2"}
    assert sorted(line["policy_version"] for line in run.lines("eval.jsonl")) == [0, 2, 4, 5]


async def test_two_refusals_in_one_pool_do_not_keep_another_from_trying(tmp_path: Path) -> None:
    tried = iter([ActorLostError("gone before it could try")])
    workers = of_two_pools(lambda version: next(tried, None) if version == 2 else None, refusing(2))
    workers.append(FakeWorker("exact-again", delay_s=lambda lease: 0.005))
    run = Run(make_config(tmp_path, updates=4, actors={"pools": POOLS}), workers=workers)
    await run.run()
    assert {e[1] for e in run.events if e[0] == "sample" and e[2] == 2} == {"exact-again"}
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 16


async def test_a_version_that_every_pool_refuses_is_not_evaluated(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, lag=1, updates=4, actors={"pools": POOLS}, eval={"problems": 3, "every_updates": 2, "pass_at_k": 0}
    )
    run = Run(config, workers=of_two_pools(refusing(2), refusing(2)))
    await run.run()
    assert run.workers.made == 3
    assert incidents(run).count("version_skipped") == 2, "one for each pool"
    assert incidents(run).count("evaluation_skipped") == 1
    assert [line["policy_version"] for line in run.lines("eval.jsonl")] == [0, 4]


@pytest.mark.parametrize(("lag", "refused"), [(0, [3]), (1, [2, 3])])
async def test_a_last_version_that_nobody_can_prove_lacks_its_evaluation_and_no_more(
    tmp_path: Path, lag: int, refused: list[int]
) -> None:
    """The lag bound is used up, but nothing is trained any more: every update is made, older evaluations too."""
    config = make_config(tmp_path, lag=lag, updates=3, eval={"problems": 3, "every_updates": 1, "pass_at_k": 0})
    slow_to_evaluate = FakeWorker("w0", refuse=refusing(*refused), delay_s=lambda lease: 0.01)
    run = Run(config, workers=[slow_to_evaluate])
    await run.run()
    assert not run.controller.stopped_early
    assert run.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 12
    assert [line["policy_version"] for line in run.lines("eval.jsonl")] == [v for v in range(4) if v not in refused]
    assert incidents(run).count("evaluation_skipped") == len(refused)
    assert run.workers.made == 1


async def test_a_skipped_version_is_not_evaluated_after_a_resume_either(tmp_path: Path) -> None:
    """From disk it comes without probes: any worker would take it, and its accuracy would count."""
    sections: dict[str, dict[str, Any]] = {
        "eval": {"problems": 3, "every_updates": 2, "pass_at_k": 0},
        "cluster": {"checkpoint_every_updates": 1},
    }
    first = Run(make_config(tmp_path, lag=1, updates=3, **sections), workers=[FakeWorker("w0", refuse=refusing(2))])
    await first.run()
    assert incidents(first).count("evaluation_skipped") == 1
    again = Run(make_config(tmp_path, lag=1, updates=6, **sections))
    await again.run()
    assert [line["policy_version"] for line in again.lines("eval.jsonl")] == [0, 3, 4, 6]
    assert incidents(again).count("evaluation_skipped") == 2, "told again where it would have been made"


async def test_one_refusal_is_forgiven_when_the_second_try_proves_it(tmp_path: Path) -> None:
    torn = iter([ProofError("torn on the way")])
    run = Run(make_config(tmp_path, updates=2), workers=[FakeWorker("w0", refuse=lambda version: next(torn, None))])
    await run.run()
    assert run.workers.made == 1


async def test_what_the_first_worker_cannot_load_stops_the_run_at_once(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path), workers=[FakeWorker("w0", start_fault=DataError("no such model"))])
    with pytest.raises(DataError, match="no such model"):
        await run.run()
    assert run.workers.made == 1


@pytest.mark.parametrize("why", ["RuntimeError: CUDA out of memory", "OSError: [Errno 116] Stale file handle"])
@pytest.mark.parametrize(("steps_before", "made"), [(0, 1), (3, 2)])
async def test_what_does_not_load_ends_a_first_start_and_a_later_one_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_before: int, made: int, why: str
) -> None:
    fault = LoadError(f"cannot load the model m: {why}")
    run = Run(make_config(tmp_path, updates=1), workers=[FakeWorker("w0", start_fault=fault), FakeWorker("w1")])
    monkeypatch.setattr(run.recorder, "last_step", lambda: steps_before)
    if steps_before:
        await run.run()
    else:
        with pytest.raises(LoadError, match=why.partition(":")[0]):
            await run.run()
    assert run.workers.made == made


async def test_a_group_that_the_engine_spoilt_goes_back_and_is_sampled_again(tmp_path: Path) -> None:
    def aborted_once(lease: Lease) -> FinishReason:
        return FinishReason.ABORT if (lease.lease_id, lease.attempt) == (2, 0) else FinishReason.STOP

    run = Run(make_config(tmp_path, updates=2), workers=[FakeWorker(finish=aborted_once)])
    await run.run()
    last = run.lines("metrics.jsonl")[-1]
    assert (last["ledger"]["dropped"], last["ledger"]["trained"]) == (0, 8)
    again = [line for line in run.lines("events.jsonl") if line["event"] == "sampled_again"]
    assert [(line["lease"], line["endings"]) for line in again] == [(2, ["abort"])]


async def test_asking_for_what_cannot_be_is_refused(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path))
    with pytest.raises(ConfigError, match=r"0 workers in all, cluster.min_workers is 1"):
        run.controller.fleet.scale(0)
    with pytest.raises(ConfigError, match=r"no pool 'big'; this run has worker"):
        run.controller.fleet.scale(2, "big")
    run.close()


class Asked:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def scale(self, workers: int, pool: str | None) -> None:
        if workers == 0:
            raise ConfigError("too few")
        self.calls.append(("scale", workers, pool))

    def stop(self) -> None:
        self.calls.append(("stop",))


async def test_a_live_run_takes_requests_from_its_directory_and_refuses_nonsense(tmp_path: Path) -> None:
    run, asked = Run(make_config(tmp_path)), Asked()
    control = asyncio.ensure_future(RunControl(run.path, run.recorder, asked).run())
    await asyncio.sleep(0)
    await asyncio.to_thread(ask, run.path, ask="scale", workers=3, pool=None)
    with pytest.raises(ConfigError, match="refuses: too few"):
        await asyncio.to_thread(ask, run.path, ask="scale", workers=0)
    with pytest.raises(ConfigError, match="refuses: a run cannot be asked to 'fly'"):
        await asyncio.to_thread(ask, run.path, ask="fly")
    (run.path / "control" / "9.json").write_text("{")
    await until(lambda: not list((run.path / "control").glob("*.json")))
    await asyncio.to_thread(ask, run.path, ask="stop")
    control.cancel()
    run.close()
    assert asked.calls == [("scale", 3, None), ("stop",)]
    assert len([line for line in run.lines("events.jsonl") if line["event"] == "request_refused"]) == 3


def test_a_run_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="takes no requests"):
        ask(tmp_path, ask="stop")
    (tmp_path / "control").mkdir()
    monkeypatch.setattr("cluster.record.requests.ANSWER_WITHIN_S", 0.2)
    with pytest.raises(DataError, match="no controller took the request"):
        ask(tmp_path, ask="stop")
    assert not list((tmp_path / "control").iterdir()), "the request is withdrawn"


async def test_a_worker_that_never_loads_a_version_is_given_up_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would pass its health check and go on trying: a user's engine whose `score` always raises."""
    monkeypatch.setattr("cluster.flow.dispatcher.ADOPT_PAUSE_S", 0.001)
    broken = FakeWorker("worker-0", refuse=lambda _version: EngineError("score failed at mine.py:7"))
    run = Run(make_config(tmp_path, updates=2), workers=[broken])
    await run.run()
    assert [event[1] for event in run.events if event[0] == "refuse"] == ["worker-0"] * 5
    assert any("score failed at mine.py:7" in headline for headline in headlines(run.path))
