"""What an evaluation under way holds on to."""

import asyncio
from pathlib import Path

from cluster.evaluator import Evaluator
from contracts.problem import Lease
from contracts.reports import EvalReport
from tests.fakes import CountingTask
from tests.unit.cluster.test_controller import make_config


async def test_a_version_is_held_between_two_runs_of_its_evaluation_until_the_last(tmp_path: Path) -> None:
    """Between greedy and pass@k no lease names the version: only this keeps its adapter from being pruned."""
    config = make_config(tmp_path, eval={"problems": 1, "pass_at_k": 2, "pass_at_k_problems": 1})
    leases: list[Lease] = []
    held: list[set[int]] = []

    def record(_report: EvalReport) -> None:
        held.append(evaluator.versions)

    evaluator = Evaluator(config, CountingTask(), leases.append, record, lambda kind, headline: None)
    evaluator.begin(7, 7, at_edge=False)
    for _ in range(2):
        while not leases:
            await asyncio.sleep(0)
        assert evaluator.versions == {7}
        evaluator.given_up(leases.pop().lease_id)
    while evaluator.versions:
        await asyncio.sleep(0)
    assert held == [{7}, {7}]
