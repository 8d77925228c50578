"""From leases to groups: what one worker is given, call by call, while it serves.

 WorkQueue --leases--> _call (one per wave; per lease on a continuous engine) --groups--> sampled
     ^                    | EngineError, deadline: leases return, the worker is SUSPECT until it passes its health check
     +--------------------+ PartLostError: leases return, the worker is GONE

Beside it `_follow` keeps the worker on the newest servable version: adopt, prove; a refused version is an incident, tried
once more with fresh bytes. A worker that alone refuses what others of its kind prove is retired; a version that nobody of a
kind can prove is skipped by that kind, and the run stops where that leaves no kind a version to sample with
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
from cluster.flow.worker_state import Seat, SeatState
from cluster.flow.worker_targets import WorkerTargets
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.recorder import Recorder
from contracts.errors import AdapterMissingError, EngineError, PartLostError, ProofError, RunStopped, cause_of_refusal
from contracts.problem import Lease, Purpose
from contracts.rollout import RolloutGroup


class Outcomes(Protocol):
    """Who hears what became of leases (lease_outcomes.py)."""

    def sampled(self, groups: Sequence[RolloutGroup]) -> None: ...

    def sampling_failed(self, leases: Sequence[Lease], error: Exception, *, crashed_alone: bool = False) -> None: ...

    def unservable(self, leases: Sequence[Lease], error: Exception) -> None: ...


@dataclass(eq=False)
class Dispatcher:
    """Serves seats."""

    config: RunConfig
    queue: WorkQueue
    registry: AdapterRegistry
    recorder: Recorder
    outcomes: Outcomes
    staleness: Staleness
    targets: WorkerTargets
    changed: Signal
    _seats: set[Seat] = field(default_factory=set)
    _votes: defaultdict[str, ProofVotes] = field(default_factory=lambda: defaultdict(ProofVotes))
    """By kind of worker."""

    async def serve(self, seat: Seat) -> Exception | None:
        """Returns None when the worker has drained, the reason when it is lost or retired. Raises what stops the run.

        Consumes leases; produces calls; waits for leases, room or a version; unblocked by the signal.
        """
        follow = asyncio.ensure_future(self._follow(seat))
        self._seats.add(seat)
        try:
            while seat.state is not SeatState.GONE:
                for task in [task for task in (follow, *seat.calls) if task.done()]:
                    seat.calls.discard(task)
                    task.result()
                if seat.state is SeatState.DRAINING:
                    await self._drain(seat)
                    return None
                if seat.state is SeatState.SUSPECT:
                    await self._check_health(seat)
                elif not self._give(seat):
                    await self.changed.wait()
            return seat.reason
        finally:
            self._seats.discard(seat)
            seat.lose(PartLostError(f"{seat.worker_id} left the run"))
            await cancelled([follow, *seat.calls])

    def _give(self, seat: Seat) -> bool:
        """Hand over the next leases if there are any and the worker has room."""
        self._leave_out_evaluations()
        servable = self.registry.servable(seat.kind)
        if servable is None:
            return False
        left = self.staleness.lag_left()
        spare = max(0, min(self.config.learner.max_policy_lag // 2, left))
        room = seat.room(self.registry.newest, servable, spare, left)
        if room <= 0:
            return False
        leases = self.queue.dispatch(
            seat.version,
            room,
            one=seat.settings.continuous,
            idle=seat.rows == 0,
            evaluates=lambda version: version <= seat.version and not self.registry.skipped(version, seat.kind),
            training_tokens=self.config.actors.max_new_tokens
            if self.registry.newest < self.config.learner.num_updates
            else None,
        )
        if not leases:
            return False
        rows = sum(lease.num_rollouts for lease in leases)
        if leases[0].attempt > 0:
            rows = max(rows, seat.settings.window_rows)  # nothing else joins it
        seat.rows += rows
        seat.calls.add(asyncio.ensure_future(self._call(seat, leases, rows)))
        return True

    async def _call(self, seat: Seat, leases: Sequence[Lease], rows: int) -> None:
        """One call to the worker; whatever happens, its leases are done or back in the queue. rows: what it takes up."""
        alone, version = leases[0].attempt > 0, leases[0].policy_version
        evaluates = leases[0].purpose is Purpose.EVAL
        try:
            async with asyncio.timeout(leases[0].deadline_s + self.config.cluster.grace_s):
                if evaluates:  # newer versions may have pushed this one out
                    await seat.handle.adopt(self.registry.reference(version))
                groups = await seat.handle.sample(leases)
        except (AdapterMissingError, ProofError, ValueError) as error:
            if evaluates and (self._skipped_by_all(version) or self.registry.refused_by_all(version)):
                self.outcomes.unservable(leases, error)
            else:
                self.outcomes.sampling_failed(leases, error)
        except (EngineError, TimeoutError) as error:
            seat.suspect()
            self.outcomes.sampling_failed(leases, _told(seat, error), crashed_alone=alone)
        except PartLostError as error:
            seat.lose(error)
            self.outcomes.sampling_failed(leases, error, crashed_alone=alone)
        except asyncio.CancelledError:
            for lease in reversed(leases):
                self.queue.put_back(lease)
            raise
        else:
            self.outcomes.sampled(groups)
        finally:
            seat.rows -= rows
            self.changed.notify()

    async def _follow(self, seat: Seat) -> None:
        """Consumes published versions; produces proven ones; waits for the next; unblocked by the signal. Raises RunStopped
        where no version is left to sample with."""
        while seat.state is not SeatState.GONE:
            version = self.registry.servable(seat.kind)
            done = version is None or seat.version >= version or seat.state is SeatState.DRAINING
            if version is None or done or self._held_back(seat, version):
                await self.changed.wait()
                continue
            try:
                async with asyncio.timeout(seat.settings.lease_deadline_s + self.config.cluster.grace_s):
                    await seat.handle.adopt(self.registry.reference(version))
            except (ProofError, ValueError) as error:
                self._refused(seat, version, error)
            except PartLostError as error:
                seat.lose(error)
            except (EngineError, AdapterMissingError, TimeoutError) as error:
                seat.suspect()
                told = str(_told(seat, error))
                self.recorder.event("adopt_failed", worker=seat.worker_id, version=version, error=told)
                await self.changed.wait(timeout_s=1.0)
            else:
                seat.proven(version)
                self.registry.proven(version, seat.kind)
                self._votes[seat.kind].proven(version, seat.worker_id)
                self.recorder.event("proven", worker=seat.worker_id, version=version)
            self.changed.notify()

    def _refused(self, seat: Seat, version: int, error: Exception) -> None:
        seat.refusal = error
        refusals = self._votes[seat.kind].refused(version, seat.worker_id)
        blame = self._blame(seat, version)
        self.recorder.incident(
            "version_refused",
            str(error),
            worker=seat.worker_id,
            version=version,
            refusals=refusals,
            follows=blame,
            cause=cause_of_refusal(error),
        )

    def _held_back(self, seat: Seat, version: int) -> bool:
        """Act on what this worker and the others said of a version; true where this worker is not to try it now."""
        blame = self._blame(seat, version)
        if blame is Blame.WORKER:
            assert seat.refusal is not None, "a worker that is at fault has refused"
            seat.lose(seat.refusal)
            self.changed.notify()
        if blame is Blame.VERSION:
            self._skip(seat, version)
        return blame not in (None, Blame.AGAIN)

    def _blame(self, seat: Seat, version: int) -> Blame | None:
        undecided = [
            other.worker_id
            for other in self._seats
            if other is not seat and other.kind == seat.kind and other.version < version
            if other.state not in (SeatState.GONE, SeatState.DRAINING)
        ]
        return self._votes[seat.kind].blame(version, seat.worker_id, undecided)

    def _skip(self, seat: Seat, version: int) -> None:
        """No worker of this kind serves this version; go on with what each kind may serve while the lag bound allows."""
        assert seat.refusal is not None, "who skips a version has refused it"
        newest, kinds = self.registry.newest, {seat.kind, *self.targets.wanted}
        others = [self.registry.skipped(version, kind) for kind in kinds - {seat.kind}]
        self.registry.skip(version, seat.kind, by_all=all(others))
        kept = {kind: v for kind in sorted(kinds) if (v := self.registry.servable(kind)) is not None}
        last = newest >= self.config.learner.num_updates  # nothing is trained any more: no lag bound holds
        served = {kind: v for kind, v in kept.items() if last or newest - v <= self.config.learner.max_policy_lag}
        whose = f" by the workers of pool '{seat.kind}'" if len(kinds) > 1 else ""
        headline = (
            f"version {version} is skipped{whose}, {_what_is_served(served, len(kinds))}: every try to prove it was "
            f"refused: {what_it_means(seat.refusal)}. Last refusal: {seat.refusal}"
        )
        self.recorder.incident(
            "version_skipped", headline, version=version, pool=seat.kind, serves=kept.get(seat.kind), newest=newest
        )
        self.changed.notify()
        if not served and not last:
            raise RunStopped(
                f"{headline}. learner.max_policy_lag = {self.config.learner.max_policy_lag} allows nothing older. `memr resume` goes "
                f"on; {what_to_do(seat.refusal)}"
            )

    def _skipped_by_all(self, version: int) -> bool:
        kinds = self.targets.wanted
        return bool(kinds) and all(self.registry.skipped(version, kind) for kind in kinds)

    def _leave_out_evaluations(self) -> None:
        """Of versions that no kind of worker serves."""
        for version in sorted(self.queue.versions_needed()):
            if self._skipped_by_all(version) and (leases := self.queue.withdraw_evaluations(version)):
                self.outcomes.unservable(
                    leases, ProofError(f"no worker could prove version {version}: it is not evaluated")
                )

    async def _check_health(self, seat: Seat) -> None:
        """A real one-token generation. A worker without a version yet has nothing to generate with: it must adopt."""
        deadline_s = seat.settings.health_deadline_s
        try:
            async with asyncio.timeout(deadline_s + self.config.cluster.grace_s):
                if seat.version >= 0:
                    await seat.handle.health(deadline_s)
        except (EngineError, AdapterMissingError, PartLostError, TimeoutError) as error:
            seat.lose(_told(seat, error))
        else:
            seat.cleared()

    async def _drain(self, seat: Seat) -> None:
        """Finish what is in hand, within the bound; what is not finished returns to the queue."""
        if seat.calls:
            await asyncio.wait(seat.calls, timeout=self.config.cluster.drain_s)


def _what_is_served(served: Mapping[str, int], num_kinds: int) -> str:
    """served: version by kind of worker."""
    if not served:
        return "no version is left to sample with"
    told = [f"version {version}" + (f" by '{kind}'" if num_kinds > 1 else "") for kind, version in served.items()]
    return f"{' and '.join(told)} is served on"


def _told(seat: Seat, error: Exception) -> Exception:
    if not isinstance(error, TimeoutError):
        return error
    return EngineError(
        f"{seat.worker_id} gave no sign of life within its deadline; it is checked, and replaced if it is stuck"
    )
