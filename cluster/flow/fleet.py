"""The fleet: rollout workers join, leave, are lost and replaced while the run goes on. No fixed world size anywhere.

 targets --> join: start process -> load model -> serve (newest version -> fetch -> prove -> leases) --> end process
    ^                                             |
    |  scale, autoscale                           +-- lost: replaced within the restart budget, else the target sinks;
    +-- below min_workers: RunStopped                 below min_workers the run stops with the reason

Consumes targets and losses; produces served workers; waits for either; unblocked by the signal.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from cluster.config.run_config import RunConfig
from cluster.flow.change_signal import Signal, cancelled
from cluster.flow.worker_state import WorkerState, WorkerStatus
from cluster.flow.worker_targets import WorkerTargets
from cluster.handles import Services, WorkerHandle
from cluster.record.events.workers import Draining, Joined, Left, Scaled, WorkerLost
from cluster.record.recorder import Recorder
from cluster.recovery.failure_policy import Budget, Component, Failure, RestartAction, decide
from contracts.errors import ConfigError, DataError, LoadError, MemrError, RunStopped
from loading.load_errors import out_of_memory


class Serves(Protocol):
    """The dispatcher, as the fleet sees it."""

    async def serve(self, worker: WorkerState) -> Exception | None:
        """Returns None when the worker has drained, the reason when it is lost or retired."""


class Fleet:
    """clock: seconds, monotonic."""

    def __init__(
        self,
        config: RunConfig,
        services: Services,
        targets: WorkerTargets,
        dispatcher: Serves,
        recorder: Recorder,
        changed: Signal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = config.cluster
        self._pools = config.actors.by_pool
        self._services, self._targets, self._dispatcher = services, targets, dispatcher
        self._recorder = recorder
        self._changed = changed
        self._clock = clock
        self._serial = 0
        self._joining: dict[str, str] = {}  # worker id -> pool
        self._workers: dict[str, WorkerState] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._failures: list[Failure] = []
        self._ever_served = False
        self._num_first = targets.total
        self._untried = dict(targets.by_pool)  # of the first workers those that were not lost, by pool

    @property
    def workers(self) -> list[WorkerState]:
        return list(self._workers.values())

    @property
    def target(self) -> int:
        return self._targets.total

    @property
    def joining(self) -> int:
        return len(self._joining)

    @property
    def serving(self) -> int:
        return sum(
            1 for worker in self._workers.values() if worker.state is WorkerStatus.SERVING and worker.version >= 0
        )

    def scale(self, workers: int, pool: str | None = None) -> None:
        """Set how many workers there shall be, of `pool` or of the first pool beside the others as they are.

        Raises ConfigError for a pool that does not exist, a number below min_workers, more than can be placed.
        """
        now = self._targets.by_pool
        pool = pool or self._targets.first
        if pool not in now:
            raise ConfigError(f"there is no pool '{pool}'; this run has {', '.join(now)}")
        total = self.target - now[pool] + workers
        if workers < 0 or total < self._settings.min_workers:
            raise ConfigError(f"{total} workers in all, cluster.min_workers is {self._settings.min_workers}")
        if workers > now[pool] and (short := self._services.shortages({**now, pool: workers})):
            raise ConfigError("; ".join(short))
        self._recorder.event(Scaled(pool, workers, before=now[pool]))
        self._targets.set(pool, workers)
        self._changed.notify()

    async def run(self) -> None:
        """Until cancelled. Raises RunStopped when too few workers are left, or what a worker's start said."""
        try:
            while True:
                for life in [life for life in self._lives if life.done()]:
                    self._lives.discard(life)
                    life.result()
                self._match_targets()
                await self._changed.wait()
        finally:
            await cancelled(self._lives)

    def _match_targets(self) -> None:
        for pool, target in self._targets.by_pool.items():
            staying = [
                worker
                for worker in self._workers.values()
                if worker.pool == pool and worker.state is not WorkerStatus.DRAINING
            ]
            alive = len(staying) + sum(1 for joining in self._joining.values() if joining == pool)
            for _ in range(target - alive):
                self._join(pool)
            for worker in staying[::-1][: max(0, alive - target)]:  # the youngest go first
                worker.drain()
                self._recorder.event(Draining(worker.worker_id, worker.rows))
                self._changed.notify()

    def _join(self, pool: str) -> None:
        worker_id = f"{pool}-{self._serial}"
        self._serial += 1
        self._joining[worker_id] = pool
        life = asyncio.ensure_future(self._live(worker_id, pool))
        life.add_done_callback(lambda _: self._changed.notify())
        self._lives.add(life)

    async def _live(self, worker_id: str, pool: str) -> None:
        """One worker from start to end."""
        started = self._clock()
        handle = self._services.workers.create(worker_id, pool)
        try:
            lost = await self._started(handle)
            if lost is None:
                self._recorder.event(Joined(worker_id, round(self._clock() - started, 3)))
                self._ever_served = True
                self._workers[worker_id] = WorkerState(handle, pool, self._pools[pool])
                del self._joining[worker_id]
                lost = await self._dispatcher.serve(self._workers[worker_id])
            if lost is None:
                self._recorder.event(Left(worker_id))
        finally:
            self._joining.pop(worker_id, None)
            self._workers.pop(worker_id, None)
            found = self._services.workers.end(handle)
        if lost is not None:
            self._lost(worker_id, pool, lost, found)

    async def _started(self, handle: WorkerHandle) -> Exception | None:
        """None when its model is loaded, else why it is not."""
        limit_s = self._settings.worker_start_s
        try:
            async with asyncio.timeout(limit_s):
                await handle.start()
        except TimeoutError:
            return DataError(f"{handle.worker_id} did not start within cluster.worker_start_s = {limit_s:.0f} s")
        except (MemrError, ValueError) as error:
            return error
        return None

    def _lost(self, worker_id: str, pool: str, error: Exception, found: str) -> None:
        """Decide on a replacement; raises RunStopped where too few workers would be left."""
        loads = isinstance(error, LoadError) or out_of_memory(error)
        may_pass = loads and self._recorder.last_step() > 0  # workers of an earlier life did load
        if int(worker_id.rpartition("-")[2]) < self._num_first:
            self._untried[pool] -= 1
        refused = isinstance(error, ConfigError | DataError) and not may_pass
        if not self._ever_served and refused and self._untried[pool] <= 0:
            raise error  # what none of the first workers could load, none can; one alone may have a bad GPU or node
        now, settings = self._clock(), self._settings
        self._failures.append(Failure(Component.WORKER, now))
        budget = Budget(settings.worker_restarts, settings.worker_restart_window_s)
        enough = self.target > settings.min_workers
        verdict = decide(self._failures, budget, now, enough_without=enough)
        replaced = verdict.decision is RestartAction.RESTART_COMPONENT
        self._recorder.event(WorkerLost(f"{error}; {found}", worker_id, replaced))
        if replaced:
            return
        self._targets.lose_one(pool)
        if verdict.decision is RestartAction.STOP:
            raise RunStopped(
                f"{self.target} rollout workers are left, cluster.min_workers is {settings.min_workers}, and the "
                f"budget of {budget.restarts} replacements within {budget.window_s:.0f} s is spent. The last one lost "
                f"was {worker_id}: {error}"
            )
