"""Held-out evaluations that run beside training.

Consumes (version, step); produces leases for the work queue and, when all have come back, an EvalReport;
waits for the workers; unblocked by `finished` and `given_up`.

One that breaks is an incident at once: training goes on beside it, and its error is raised when the run's end waits for it.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

from cluster.config.run_config import RunConfig
from cluster.flow.change_signal import RECHECK_S, Signal, cancelled
from cluster.flow.evaluation import EvalPlan, eval_leases, evaluate_groups
from cluster.flow.uninterruptible import errors_of
from cluster.record.events.event import Event
from cluster.record.events.training import EvaluationFailed
from contracts.ports import Task
from contracts.problem import Lease, Sampling
from contracts.reports import EvalReport
from contracts.rollout import RolloutGroup


class _Unservable(Exception):
    """No worker serves the version that an evaluation asks for."""


class LeaseSink(Protocol):
    """The work queue, as evaluations see it."""

    def add(self, lease: Lease) -> None: ...


class EvaluationRecord(Protocol):
    """The recorder, as evaluations see it."""

    def evaluation(self, report: EvalReport) -> None: ...

    def event(self, event: Event) -> None: ...


class Evaluator:
    """done: (step, max_new_tokens, k) of evaluations that an earlier process finished."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        queue: LeaseSink,
        recorder: EvaluationRecord,
        changed: Signal,
        done: Collection[tuple[int, int, int | None]] = (),
    ) -> None:
        self._config, self._task = config, task
        self._queue, self._recorder, self._changed = queue, recorder, changed
        self._done = frozenset(done)
        self._next_id = -1
        self._results: dict[int, asyncio.Future[RolloutGroup | None]] = {}
        self._begun: dict[asyncio.Task[None], int] = {}

    @property
    def open_leases(self) -> int:
        return len(self._results)

    @property
    def versions(self) -> set[int]:
        """That evaluations under way are of, also between two of their runs, when no lease names them; and those of
        evaluations that broke, which the next life makes again."""
        return {version for task, version in self._begun.items() if not task.done() or errors_of([task])}

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

    def begin(self, policy_version: int, step: int, *, at_edge: bool) -> None:
        """`evaluate` beside whatever goes on; `all_done` or `give_up` sees to its end."""
        self._begun[asyncio.ensure_future(self._beside(policy_version, step, at_edge=at_edge))] = policy_version

    async def _beside(self, policy_version: int, step: int, *, at_edge: bool) -> None:
        try:
            await self.evaluate(policy_version, step, at_edge=at_edge)
        except Exception as error:
            with suppress(OSError):  # of a full disk, which must not hide what broke the evaluation
                headline = (
                    f"the evaluation of version {policy_version} (after update {step}) ended with "
                    f"{type(error).__name__}: {error}. Training goes on, and this error ends the run after its last "
                    "update; `memr resume` then evaluates again"
                )
                self._recorder.event(EvaluationFailed(headline))
            raise

    def missing(self, step: int) -> bool:
        """Whether an earlier process left an evaluation of a step that was due, or a part of it, unmade."""
        plans = self._plans(step, step, at_edge=step == 0)
        return any(_name(plan) not in self._done for plan, num in plans if self._task.held_out(num))

    async def all_done(self, stopping: Callable[[], bool]) -> bool:
        """Waits for what was begun, and raises what it raised, or what `stopping` raises meanwhile. False where the run is
        stopping: what is missing then is measured when the run is resumed."""
        woken = asyncio.ensure_future(_when(stopping, self._changed))
        try:
            while not stopping() and (open_ones := [task for task in self._begun if not task.done()]):
                await asyncio.wait([*open_ones, woken], timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled([woken])
        if stopping():
            return False
        for task in self._begun:
            task.result()
        return True

    async def give_up(self) -> None:
        """Cancels what was begun and is not done."""
        await cancelled(list(self._begun))

    async def evaluate(self, policy_version: int, step: int, *, at_edge: bool) -> None:
        """Greedy accuracy; before and after training (`at_edge`) also with the generous limit; pass@k."""
        for plan, num_problems in self._plans(policy_version, step, at_edge=at_edge):
            await self._run(plan, num_problems)

    def _plans(self, policy_version: int, step: int, *, at_edge: bool) -> list[tuple[EvalPlan, int]]:
        """Each with its number of problems."""
        settings = self._config.eval
        if not settings.problems:
            return []
        limit = self._config.eval_max_new_tokens
        runs = [(1, Sampling(0.0, limit), settings.problems)]
        if at_edge and settings.generous_max_new_tokens:
            runs.append((1, Sampling(0.0, settings.generous_max_new_tokens), settings.problems))
        if settings.pass_at_k:
            sampling = Sampling(self._config.actors.temperature, limit)
            runs.append((settings.pass_at_k, sampling, settings.pass_at_k_problems))
        return [(EvalPlan(policy_version, step, samples, sampling), n) for samples, sampling, n in runs]

    async def _run(self, plan: EvalPlan, num_problems: int) -> None:
        problems = self._task.held_out(num_problems)
        if not problems:
            return  # a figure of nothing would pass for an accuracy of 0
        if _name(plan) in self._done:
            self._next_id -= len(problems)  # seeds come from lease ids: those that follow stay the same
            return
        leases = eval_leases(plan, problems, self._next_id, self._config.run.seed, self._config.actors.lease_deadline_s)
        self._next_id -= len(leases)
        loop = asyncio.get_running_loop()
        results = {lease.lease_id: loop.create_future() for lease in leases}
        self._results |= results
        for lease in leases:
            self._queue.add(lease)
        self._changed.notify()
        try:
            groups = await asyncio.gather(*results.values())
        except _Unservable:
            return
        self._recorder.evaluation(evaluate_groups(plan, groups))


def _name(plan: EvalPlan) -> tuple[int, int, int | None]:
    """As in eval.jsonl."""
    return plan.step, plan.sampling.max_new_tokens, plan.samples if plan.samples > 1 else None


async def _when(stopping: Callable[[], bool], changed: Signal) -> None:
    while not stopping():
        await changed.wait()
