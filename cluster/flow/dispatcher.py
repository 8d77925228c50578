"""Hands leases to one worker, call by call, and notices one that hangs: lease deadline, health check.

 WorkQueue --leases--> _call (one per batch; per lease on a continuous engine) --groups--> sampled
     ^                    | EngineError, deadline: leases return, the worker is UNHEALTHY until it passes its health check
     +--------------------+ ActorLostError: leases return, the worker is DEAD

Beside it `_follow` keeps the worker on the newest servable version: adopt, prove; a refused version is an incident, tried
once more with fresh bytes. A worker that alone refuses what others of its pool prove is retired; a version that nobody of a
pool can prove is skipped by that pool, and the run stops where that leaves no pool a version to sample with
(proof_votes.py). Rollouts under way are not touched by an update.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.config.run_config import RunConfig
from cluster.flow.change_signal import Signal, cancelled
from cluster.flow.proof_votes import Blame, ProofVotes
from cluster.flow.refusal_advice import what_it_means, what_to_do
from cluster.flow.staleness import Staleness
from cluster.flow.work_queue import WorkQueue
from cluster.flow.worker_state import WorkerState, WorkerStatus
from cluster.flow.worker_targets import WorkerTargets
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.events.workers import AdoptFailed, Proven, VersionRefused, VersionSkipped
from cluster.record.recorder import Recorder
from contracts.errors import ActorLostError, AdapterMissingError, EngineError, ProofError, RunStopped, cause_of_refusal
from contracts.problem import Lease, Purpose
from contracts.rollout import RolloutGroup

ADOPT_ATTEMPTS, ADOPT_PAUSE_S = 5, 1.0
"""Failures in a row to load a version, and the pause between: then the worker is given up and replaced within the budget."""


class Outcomes(Protocol):
    """Who hears what became of leases (lease_outcomes.py)."""

    def sampled(self, groups: Sequence[RolloutGroup]) -> None: ...

    def sampling_failed(self, leases: Sequence[Lease], error: Exception, *, crashed_alone: bool = False) -> None: ...

    def unservable(self, leases: Sequence[Lease], error: Exception) -> None: ...


@dataclass(eq=False)
class Dispatcher:
    """Serves workers."""

    config: RunConfig
    queue: WorkQueue
    registry: AdapterRegistry
    recorder: Recorder
    outcomes: Outcomes
    staleness: Staleness
    targets: WorkerTargets
    changed: Signal
    _workers: set[WorkerState] = field(default_factory=set)
    _votes: defaultdict[str, ProofVotes] = field(default_factory=lambda: defaultdict(ProofVotes))
    """By pool of worker."""

    async def serve(self, worker: WorkerState) -> Exception | None:
        """Returns None when the worker has drained, the reason when it is lost or retired. Raises what stops the run.

        Consumes leases; produces calls; waits for leases, room or a version; unblocked by the signal.
        """
        follow = asyncio.ensure_future(self._follow(worker))
        self._workers.add(worker)
        try:
            while worker.state is not WorkerStatus.DEAD:
                for task in [task for task in (follow, *worker.calls) if task.done()]:
                    worker.calls.discard(task)
                    task.result()
                if worker.state is WorkerStatus.DRAINING:
                    await self._drain(worker)
                    return None
                if worker.state is WorkerStatus.UNHEALTHY:
                    await self._check_health(worker)
                elif not self._give(worker):
                    await self.changed.wait()
            return worker.reason
        finally:
            self._workers.discard(worker)
            worker.lose(ActorLostError(f"{worker.worker_id} left the run"))
            await cancelled([follow, *worker.calls])

    def _give(self, worker: WorkerState) -> bool:
        """Hand over the next leases if there are any and the worker has room."""
        self._leave_out_evaluations()
        servable = self.registry.servable(worker.pool)
        if servable is None:
            return False
        left = self.staleness.lag_left()
        spare = max(0, min(self.config.learner.max_policy_lag // 2, left))
        room = worker.capacity(self.registry.newest, servable, spare, left)
        if room <= 0:
            return False
        leases = self.queue.dispatch(
            worker.version,
            room,
            one=worker.settings.continuous,
            idle=worker.rows == 0,
            evaluates=lambda version: version <= worker.version and not self.registry.skipped(version, worker.pool),
            training_tokens=self.config.actors.max_new_tokens
            if self.registry.newest < self.config.learner.num_updates
            else None,
        )
        if not leases:
            return False
        rows = sum(lease.num_rollouts for lease in leases)
        if leases[0].attempt > 0:
            rows = max(rows, worker.settings.window_rows)  # nothing else joins it
        worker.rows += rows
        worker.calls.add(asyncio.ensure_future(self._call(worker, leases, rows)))
        return True

    async def _call(self, worker: WorkerState, leases: Sequence[Lease], rows: int) -> None:
        """One call to the worker; whatever happens, its leases are done or back in the queue. rows: how many samples it takes."""
        alone, version = leases[0].attempt > 0, leases[0].policy_version
        evaluates = leases[0].purpose is Purpose.EVAL
        try:
            async with asyncio.timeout(leases[0].deadline_s + worker.settings.grace_s):
                if evaluates:  # newer versions may have pushed this one out
                    await worker.handle.adopt(self.registry.reference(version))
                groups = await worker.handle.sample(leases)
        except (AdapterMissingError, ProofError, ValueError) as error:
            if evaluates and (self._skipped_by_all(version) or self.registry.refused_by_all(version)):
                self.outcomes.unservable(leases, error)
            else:
                self.outcomes.sampling_failed(leases, error)
        except (EngineError, TimeoutError) as error:
            worker.mark_unhealthy()
            self.outcomes.sampling_failed(leases, _told(worker, error), crashed_alone=alone)
        except ActorLostError as error:
            worker.lose(error)
            self.outcomes.sampling_failed(leases, error, crashed_alone=alone)
        except asyncio.CancelledError:
            for lease in reversed(leases):
                self.queue.put_back(lease)
            raise
        else:
            self.outcomes.sampled(groups)
        finally:
            worker.rows -= rows
            self.changed.notify()

    async def _follow(self, worker: WorkerState) -> None:
        """Consumes published versions; produces proven ones; waits for the next; unblocked by the signal. Raises RunStopped
        where no version is left to sample with."""
        failures = 0
        while worker.state is not WorkerStatus.DEAD:
            version = self.registry.servable(worker.pool)
            done = version is None or worker.version >= version or worker.state is WorkerStatus.DRAINING
            if version is None or done or self._held_back(worker, version):
                await self.changed.wait()
                continue
            try:
                async with asyncio.timeout(worker.settings.lease_deadline_s + worker.settings.grace_s):
                    await worker.handle.adopt(self.registry.reference(version))
            except (ProofError, ValueError) as error:
                self._refused(worker, version, error)
            except ActorLostError as error:
                worker.lose(error)
            except (EngineError, AdapterMissingError, TimeoutError) as error:
                failures += 1
                worker.mark_unhealthy()
                self.recorder.event(AdoptFailed(worker.worker_id, version, str(_told(worker, error))))
                if failures == ADOPT_ATTEMPTS:
                    worker.lose(_told(worker, error))
                await asyncio.sleep(ADOPT_PAUSE_S)
            else:
                failures = 0
                worker.proven(version)
                self.registry.proven(version, worker.pool)
                self._votes[worker.pool].proven(version, worker.worker_id)
                self.recorder.event(Proven(worker.worker_id, version))
            self.changed.notify()

    def _refused(self, worker: WorkerState, version: int, error: Exception) -> None:
        worker.refusal = error
        refusals = self._votes[worker.pool].refused(version, worker.worker_id)
        blame = self._blame(worker, version)
        cause = cause_of_refusal(error)
        self.recorder.event(VersionRefused(str(error), worker.worker_id, version, refusals, follows=blame, cause=cause))

    def _held_back(self, worker: WorkerState, version: int) -> bool:
        """Act on what this worker and the others said of a version; true where this worker is not to try it now."""
        blame = self._blame(worker, version)
        if blame is Blame.WORKER:
            assert worker.refusal is not None, "a worker that is at fault has refused"
            worker.lose(worker.refusal)
            self.changed.notify()
        if blame is Blame.VERSION:
            self._skip(worker, version)
        return blame not in (None, Blame.AGAIN)

    def _blame(self, worker: WorkerState, version: int) -> Blame | None:
        undecided = [
            other.worker_id
            for other in self._workers
            if other is not worker and other.pool == worker.pool and other.version < version
            if other.state not in (WorkerStatus.DEAD, WorkerStatus.DRAINING)
        ]
        return self._votes[worker.pool].blame(version, worker.worker_id, undecided)

    def _skip(self, worker: WorkerState, version: int) -> None:
        """No worker of this pool serves this version; go on with what each pool may serve while the lag bound allows."""
        assert worker.refusal is not None, "who skips a version has refused it"
        newest, pools = self.registry.newest, {worker.pool, *self.targets.wanted}
        others = [self.registry.skipped(version, pool) for pool in pools - {worker.pool}]
        self.registry.skip(version, worker.pool, by_all=all(others))
        kept = {pool: v for pool in sorted(pools) if (v := self.registry.servable(pool)) is not None}
        last = newest >= self.config.learner.num_updates  # nothing is trained any more: no lag bound holds
        served = {pool: v for pool, v in kept.items() if last or newest - v <= self.config.learner.max_policy_lag}
        whose = f" by the workers of pool '{worker.pool}'" if len(pools) > 1 else ""
        headline = (
            f"version {version} is skipped{whose}, {_what_is_served(served, len(pools))}: every try to prove it was "
            f"refused: {what_it_means(worker.refusal)}. Last refusal: {worker.refusal}"
        )
        self.recorder.event(VersionSkipped(headline, version, worker.pool, serves=kept.get(worker.pool), newest=newest))
        self.changed.notify()
        if not served and not last:
            raise RunStopped(
                f"{headline}. learner.max_policy_lag = {self.config.learner.max_policy_lag} allows nothing older. `memr resume` goes "
                f"on; {what_to_do(worker.refusal)}"
            )

    def _skipped_by_all(self, version: int) -> bool:
        pools = self.targets.wanted
        return bool(pools) and all(self.registry.skipped(version, pool) for pool in pools)

    def _leave_out_evaluations(self) -> None:
        """Of versions that no pool of worker serves."""
        for version in sorted(self.queue.versions_needed()):
            if self._skipped_by_all(version) and (leases := self.queue.withdraw_evaluations(version)):
                self.outcomes.unservable(
                    leases, ProofError(f"no worker could prove version {version}: it is not evaluated")
                )

    async def _check_health(self, worker: WorkerState) -> None:
        """A real one-token generation. A worker without a version yet has nothing to generate with: it must adopt."""
        deadline_s = worker.settings.check_deadline_s
        try:
            async with asyncio.timeout(deadline_s + worker.settings.grace_s):
                if worker.version >= 0:
                    await worker.handle.health(deadline_s)
        except (EngineError, AdapterMissingError, ActorLostError, TimeoutError) as error:
            worker.lose(_told(worker, error))
        else:
            worker.cleared()

    async def _drain(self, worker: WorkerState) -> None:
        """Finish what is in hand, within the bound; what is not finished returns to the queue."""
        if worker.calls:
            await asyncio.wait(worker.calls, timeout=self.config.cluster.drain_s)


def _what_is_served(served: Mapping[str, int], num_kinds: int) -> str:
    """served: version by pool of worker."""
    if not served:
        return "no version is left to sample with"
    told = [f"version {version}" + (f" by '{pool}'" if num_kinds > 1 else "") for pool, version in served.items()]
    return f"{' and '.join(told)} is served on"


def _told(worker: WorkerState, error: Exception) -> Exception:
    if not isinstance(error, TimeoutError):
        return error
    return EngineError(
        f"{worker.worker_id} gave no sign of life within its deadline; it is checked, and replaced if it is stuck"
    )
