"""Held-out evaluations that run beside training.

Consumes (version, step); produces leases for the work queue and, when all have come back, an EvalReport;
waits for the workers; unblocked by `finished` and `given_up`.
"""

import asyncio
from collections.abc import Callable, Collection

from cluster.config import RunConfig
from cluster.evaluation import EvalPlan, eval_leases, evaluate_groups
from contracts.ports import Task
from contracts.problem import Lease, Sampling
from contracts.reports import EvalReport
from contracts.rollout import RolloutGroup


class _Unservable(Exception):
    """No worker serves the version that an evaluation asks for."""


class Evaluator:
    """submit: puts a lease into the work queue. record: writes the finished report. done: (step, max_new_tokens, k) of
    evaluations that an earlier process finished."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        submit: Callable[[Lease], None],
        record: Callable[[EvalReport], None],
        done: Collection[tuple[int, int, int | None]] = (),
    ) -> None:
        self._config = config
        self._task = task
        self._submit = submit
        self._record = record
        self._done = frozenset(done)
        self._next_id = -1
        self._results: dict[int, asyncio.Future[RolloutGroup | None]] = {}

    @property
    def open_leases(self) -> int:
        return len(self._results)

    def finished(self, group: RolloutGroup) -> None:
        self._settle(group.lease_id, group)

    def given_up(self, lease_id: int) -> None:
        self._settle(lease_id, None)

    def unservable(self, lease_id: int) -> None:
        """The whole evaluation is off: a share of it would pass for the accuracy."""
        future = self._results.pop(lease_id)
        if not future.done():
            future.set_exception(_Unservable())

    def _settle(self, lease_id: int, group: RolloutGroup | None) -> None:
        future = self._results.pop(lease_id)
        if not future.done():  # done means cancelled: the run is stopping
            future.set_result(group)

    async def evaluate(self, policy_version: int, step: int, *, at_edge: bool) -> None:
        """Greedy accuracy; before and after training (`at_edge`) also with the generous limit; pass@k."""
        settings = self._config.eval
        if not settings.problems:
            return
        limit = self._config.eval_max_new_tokens
        runs = [(1, Sampling(0.0, limit), settings.problems)]
        if at_edge and settings.generous_max_new_tokens:
            runs.append((1, Sampling(0.0, settings.generous_max_new_tokens), settings.problems))
        if settings.pass_at_k:
            sampling = Sampling(self._config.actors.temperature, limit)
            runs.append((settings.pass_at_k, sampling, settings.pass_at_k_problems))
        for samples, sampling, num_problems in runs:
            await self._run(EvalPlan(policy_version, step, samples, sampling), num_problems)

    async def _run(self, plan: EvalPlan, num_problems: int) -> None:
        k = plan.samples if plan.samples > 1 else None
        if (plan.step, plan.sampling.max_new_tokens, k) in self._done:
            self._next_id -= num_problems  # seeds come from lease ids: those that follow stay the same
            return
        problems = self._task.held_out(num_problems)
        leases = eval_leases(plan, problems, self._next_id, self._config.run.seed, self._config.actors.lease_deadline_s)
        self._next_id -= len(leases)
        loop = asyncio.get_running_loop()
        results = {lease.lease_id: loop.create_future() for lease in leases}
        self._results |= results
        for lease in leases:
            self._submit(lease)
        try:
            groups = await asyncio.gather(*results.values())
        except _Unservable:
            return
        self._record(evaluate_groups(plan, groups))
