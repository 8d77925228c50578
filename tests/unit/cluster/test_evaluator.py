"""What an evaluation under way holds on to."""

import asyncio
from pathlib import Path

from cluster.flow.change_signal import Signal
from cluster.flow.evaluator import Evaluator
from cluster.record.events.event import Event
from contracts.problem import Lease, Problem
from contracts.reports import EvalReport
from tests.fakes import CountingTask
from tests.harness import make_config


class Leases:
    def __init__(self) -> None:
        self.open: list[Lease] = []

    def add(self, lease: Lease) -> None:
        self.open.append(lease)


class Reports:
    def __init__(self) -> None:
        self.made: list[EvalReport] = []

    def evaluation(self, report: EvalReport) -> None:
        self.made.append(report)

    def event(self, event: Event) -> None: ...


async def test_a_version_is_held_between_two_runs_of_its_evaluation_until_the_last(tmp_path: Path) -> None:
    """Between greedy and pass@k no lease names the version: only this keeps its adapter from being pruned."""
    config = make_config(tmp_path, eval={"problems": 1, "pass_at_k": 2, "pass_at_k_problems": 1})
    leases = Leases()
    held: list[set[int]] = []

    class Holding(Reports):
        def evaluation(self, report: EvalReport) -> None:
            held.append(evaluator.versions)

    evaluator = Evaluator(config, CountingTask(), leases, Holding(), Signal())
    evaluator.begin(7, 7, at_edge=False)
    for _ in range(2):
        while not leases.open:
            await asyncio.sleep(0)
        assert evaluator.versions == {7}
        evaluator.given_up(leases.open.pop().lease_id)
    while evaluator.versions:
        await asyncio.sleep(0)
    assert held == [{7}, {7}]


class FewHeldOut(CountingTask):
    def __init__(self, number: int) -> None:
        self.number = number

    def held_out(self, n: int) -> list[Problem]:
        return super().held_out(min(n, self.number))


async def test_an_evaluation_takes_what_is_there_and_of_nothing_makes_no_figure(tmp_path: Path) -> None:
    config = make_config(tmp_path, eval={"problems": 5})
    for number in (0, 3):
        leases, reports = Leases(), Reports()
        evaluator = Evaluator(config, FewHeldOut(number), leases, reports, Signal())
        evaluator.begin(7, 7, at_edge=False)
        while evaluator.versions:
            while leases.open:
                evaluator.given_up(leases.open.pop().lease_id)
            await asyncio.sleep(0)
        assert [report.n for report in reports.made] == [number] * bool(number)


async def test_lease_ids_of_later_evaluations_do_not_depend_on_what_was_done_before(tmp_path: Path) -> None:
    """Of three held-out problems although five were asked for: seeds come from lease ids."""
    config = make_config(tmp_path, eval={"problems": 5, "pass_at_k": 2, "pass_at_k_problems": 5})
    ids = []
    for done in ((), {(7, config.eval_max_new_tokens, None)}):
        leases = Leases()
        evaluator = Evaluator(config, FewHeldOut(3), leases, Reports(), Signal(), done)
        evaluator.begin(7, 7, at_edge=False)
        seen = []
        while evaluator.versions:
            while leases.open:
                lease = leases.open.pop()
                seen += [lease.lease_id] * (lease.num_rollouts == 2)
                evaluator.given_up(lease.lease_id)
            await asyncio.sleep(0)
        ids.append(sorted(seen))
    assert ids[0] == ids[1] == [-6, -5, -4]
