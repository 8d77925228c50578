"""What workers say of their own work: rates that can be counted by hand, and no update that waits for them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from actors.config import ActorSettings
from cluster.commands.summary import show_status
from cluster.flow import worker_reports
from cluster.flow.worker_reports import OLD_S, WorkerReports
from cluster.flow.worker_state import WorkerState
from cluster.record.run_dir import create_run
from cluster.record.run_view import read_run
from cluster.record.worker_figures import fleet_fields, work_text
from cluster.watch.console import _flow_text
from cluster.watch.tensorboard import _numbers, _section
from cluster.watch.terminal import into
from contracts.errors import ActorLostError
from contracts.problem import Lease
from contracts.reports import StepReport, WorkerReport
from contracts.rollout import RolloutGroup, ScoredGroup
from tests.fakes import FakeLearner, FakeWorker
from tests.harness import Run, make_config


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Counting(FakeWorker):
    """Reports the counters that it is given: tokens, generate_s, verify_s, leases in hand, leases to judge."""

    counters: Callable[[], tuple[int, float, float, int, int]] = lambda: (0, 0.0, 0.0, 0, 0)
    asked: int = 0

    async def report(self) -> WorkerReport:
        self.asked += 1
        tokens, generate_s, verify_s, in_hand, to_judge = self.counters()
        return WorkerReport(self.worker_id, 0, 0, 0, tokens, generate_s, verify_s, 0, 0.0, in_hand, to_judge)


@dataclass
class Hanging(FakeWorker):
    cancelled: bool = False

    async def report(self) -> WorkerReport:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("nobody sets it")


@dataclass
class Workers:
    """The fleet."""

    handles: list[FakeWorker]

    @property
    def workers(self) -> Sequence[WorkerState]:
        return [WorkerState(handle, "worker", ActorSettings()) for handle in self.handles]


@dataclass
class Asked:
    """Reports of these workers, on a clock that stands still."""

    handles: list[FakeWorker]
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.fleet = Workers(self.handles)
        self.reports = WorkerReports(self.fleet, self.clock)

    async def at(self, now: float) -> WorkerReports:
        """Asks then, and lets those answer that do."""
        self.clock.now = now
        self.reports.ask()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.reports


async def test_two_workers_and_their_sum_by_hand() -> None:
    a, b = Counting("a"), Counting("b", counters=lambda: (100, 5.0, 5.0, 0, 0))
    asked = Asked([a, b])
    first = fleet_fields((await asked.at(0.0)).take())
    assert first == {
        "leases_in_hand": 0,
        "leases_to_judge": 0,
        "by_worker": {name: {"leases_in_hand": 0, "leases_to_judge": 0} for name in "ab"},
    }, "nothing to measure from yet"
    a.counters, b.counters = lambda: (300, 6.0, 2.0, 4, 1), lambda: (600, 14.0, 6.0, 2, 0)
    found = fleet_fields((await asked.at(10.0)).take())
    assert found == {
        "tokens_per_s": 80.0,  # 300 in 10 s, and 500 in 10 s
        "verify_share": 3 / 18,  # 2 of 8 s, and 1 of 10 s
        "leases_in_hand": 6,
        "leases_to_judge": 1,
        "by_worker": {
            "a": {"tokens_per_s": 30.0, "verify_share": 0.25, "leases_in_hand": 4, "leases_to_judge": 1},
            "b": {"tokens_per_s": 50.0, "verify_share": 0.1, "leases_in_hand": 2, "leases_to_judge": 0},
        },
    }


async def test_each_update_is_measured_from_the_one_before_and_status_over_the_last_one_and_since() -> None:
    asked = Asked([worker := Counting("a")])
    took = []
    for now, tokens in ((0.0, 0), (10.0, 100), (20.0, 400)):
        worker.counters = lambda tokens=tokens: (tokens, 0.0, 0.0, 0, 0)  # type: ignore[misc]
        took.append((await asked.at(now)).take()["a"].tokens_per_s)
    assert took == [None, 10.0, 30.0]
    assert asked.reports.take()["a"].tokens_per_s == 30.0, "no report since: the last one stands"
    worker.counters = lambda: (430, 0.0, 0.0, 0, 0)
    reports = await asked.at(22.0)
    assert reports.now()["a"].tokens_per_s == pytest.approx(330 / 12), "since the update before the last"
    assert reports.take()["a"].tokens_per_s == 15.0


@pytest.mark.parametrize(
    "anew", [(0, 0.0, 0.0), (40, 90.0, 90.0), (900, 0.5, 90.0), (900, 90.0, 0.5)], ids=["all", "tokens", "s", "judge"]
)
async def test_a_worker_that_restarted_has_no_rate_until_its_next_report(anew: tuple[int, float, float]) -> None:
    asked = Asked([worker := Counting("a", counters=lambda: (500, 80.0, 20.0, 3, 0))])
    (await asked.at(0.0)).take()
    worker.counters = lambda: (*anew, 1, 0)
    fields = fleet_fields((await asked.at(10.0)).take())
    assert fields == {
        "leases_in_hand": 1,
        "leases_to_judge": 0,
        "by_worker": {"a": {"leases_in_hand": 1, "leases_to_judge": 0}},
    }
    worker.counters = lambda: (anew[0] + 60, anew[1] + 3.0, anew[2] + 1.0, 1, 0)
    again = (await asked.at(15.0)).take()["a"]
    assert (again.tokens_per_s, again.fields["verify_share"]) == (12.0, 0.25)


async def test_one_that_hangs_dies_or_left_is_missing_and_is_not_asked_twice_at_once() -> None:
    hangs, good = Hanging("hangs"), Counting("good")

    async def lost() -> WorkerReport:
        raise ActorLostError("gone")

    dead = Counting("dead")
    dead.report = lost  # type: ignore[method-assign]
    asked = Asked([hangs, dead, good])
    for now in (0.0, 10.0):
        assert (await asked.at(now)).now().keys() == {"good"}
    assert len(asked.reports._asking) == 1
    asked.fleet.handles = [dead]
    assert asked.reports.now() == {}, "at once, not when the others are asked next"
    assert (await asked.at(20.0)).now() == {}
    assert hangs.cancelled


async def test_a_report_that_is_old_says_nothing_any_more() -> None:
    worker = Counting("a")
    asked = Asked([worker])
    await asked.at(0.0)
    asked.clock.now = OLD_S
    assert asked.reports.now().keys() == {"a"}
    asked.clock.now = OLD_S + 0.1
    assert asked.reports.now() == {}


async def test_one_that_hangs_is_asked_again_when_its_time_to_answer_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_reports, "ANSWER_WITHIN_S", 0.0)
    hangs = Hanging("a")
    asked = Asked([hangs])
    await asked.at(0.0)
    assert hangs.cancelled
    assert not asked.reports._asking
    asked.fleet.handles = [Counting("a")]
    assert (await asked.at(10.0)).now().keys() == {"a"}


@dataclass
class Steady(Counting):
    """Writes 30 (or `rate`) tokens a second of a clock that moves on by 2 s with each call to a worker."""

    clock: Clock = field(default_factory=Clock)
    rate: int = 30

    def __post_init__(self) -> None:
        self.counters = lambda: (int(self.rate * self.clock.now), 0.75 * self.clock.now, 0.25 * self.clock.now, 1, 0)

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        groups = await super().sample(leases)
        self.clock.now += 2.0
        return groups


@dataclass
class Watching(FakeLearner):
    """Keeps what the run says of itself during each update."""

    run: Any = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Any]:
        self.seen.append(self.run.controller.status())
        return await super().update(groups)


async def test_figures_reach_the_metrics_and_the_status_of_a_run(tmp_path: Path) -> None:
    clock, learner = Clock(), Watching(0)
    workers = [Steady("a", clock=clock), Steady("b", clock=clock, rate=50)]
    run = Run(
        make_config(tmp_path, updates=5, actors={"num_workers": 2}),
        workers=workers,
        learner=learner,
        clock=clock,
    )
    learner.run, run.controller.stages.reports.every_s = run, 0.0
    await run.run()
    lines = run.lines("metrics.jsonl")
    for line in lines[1:]:
        assert line["tokens_per_s"] == pytest.approx(80.0)
        assert line["verify_share"] == pytest.approx(0.25)
        assert line["leases_in_hand"] == 2
        assert {name: of["tokens_per_s"] for name, of in line["by_worker"].items()} == {"a": 30.0, "b": 50.0}
    during = learner.seen[-1]
    assert during["tokens_per_s"] == pytest.approx(80.0)
    assert during["fleet"]["b"]["tokens_per_s"] == pytest.approx(50.0)
    assert "by_worker" not in during
    assert "80 tokens/s, 25% of the time judging, 2 leases in hand, 0 to judge" in _flow_text(during)


async def test_a_report_that_hangs_holds_up_no_update(tmp_path: Path) -> None:
    hangs = Hanging("a")
    run = Run(make_config(tmp_path), workers=[hangs])
    run.controller.stages.reports.every_s = 0.0
    await run.run()
    assert [line["step"] for line in run.lines("metrics.jsonl")] == [1, 2, 3, 4]
    assert "leases_in_hand" not in run.lines("metrics.jsonl")[-1]
    assert hangs.cancelled, "nothing is left waiting when the run is over"


async def test_after_a_resume_nothing_jumps(tmp_path: Path) -> None:
    """The workers of the next life count from 0 again, and its clock says something else."""
    clock = Clock()
    first = Run(make_config(tmp_path, updates=3), workers=[Steady("a", clock=clock)], clock=clock)
    first.controller.stages.reports.every_s = 0.0
    await first.run()
    later = Clock(5000.0)
    worker = Steady("a", clock=later)
    worker.counters = lambda: (int(30 * (later.now - 5000)), 0.0, 0.0, 1, 0)
    again = Run(make_config(tmp_path, updates=7), workers=[worker], clock=later)
    again.controller.stages.reports.every_s = 0.0
    await again.run()
    lines = again.lines("metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 8))
    rates = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line]
    assert len(rates) > 3
    assert rates == pytest.approx([30.0] * len(rates))


def test_curves_lie_in_the_section_perf() -> None:
    figures = {"tokens_per_s": 1.0, "verify_share": 0.5, "leases_in_hand": 2, "leases_to_judge": 1}
    names = [name for name, _ in _numbers(figures | {"by_worker": {"worker-0": figures}})]
    assert "by_worker/worker-0/verify_share" in names
    assert {_section(name) for name in names} == {"perf"}


def test_status_shows_workers_and_what_older_runs_wrote_as_before(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    create_run(config, {})
    figures = {"tokens_per_s": 1234.4, "verify_share": 0.05, "leases_in_hand": 3, "leases_to_judge": 1}
    worker = {"state": "serving", "version": 2, "rollouts_in_hand": 8}
    status = {"time_s": 0.0, "phase": "updating", "step": 1, "num_updates": 4, "fleet": {"worker-0": worker}}
    read = read_run(config.run_path)
    for told, expected in ((status, "8 rollouts in hand\n"), (_with(status, figures), _LINES)):
        with (tmp_path / "shown").open("w+") as file:
            show_status(into(file), replace(read, status=told))
            file.seek(0)
            assert expected in file.read()
    assert work_text(status) == ""


_LINES = (
    "workers: 1,234 tokens/s, 5% of the time judging, 3 leases in hand, 1 to judge\n"
    "worker-0: serving, version 2, 8 rollouts in hand; 1,234 tokens/s, 5% of the time judging, 3 leases in hand, 1 to judge\n"
)


def _with(status: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    return status | figures | {"fleet": {"worker-0": status["fleet"]["worker-0"] | figures}}
