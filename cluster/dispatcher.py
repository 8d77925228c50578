"""From leases to groups: what one worker is given, call by call, while it serves.

 WorkQueue --leases--> _call (one per wave; per lease on a continuous engine) --groups--> sampled
     ^                    | EngineError, deadline: leases return, the worker is SUSPECT until it passes its health check
     +--------------------+ PartLostError: leases return, the worker is GONE

Beside it `_follow` keeps the worker on the newest version: adopt, prove; a refused version is an incident, tried once
more with fresh bytes; two refusals in a row retire the worker. Rollouts under way are not touched by an update.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from cluster.adapters import AdapterRegistry
from cluster.change_signal import Signal, cancelled
from cluster.config import RunConfig
from cluster.recorder import Recorder
from cluster.seat import Seat, SeatState
from cluster.work_queue import WorkQueue
from contracts.errors import AdapterMissingError, EngineError, PartLostError, ProofError
from contracts.problem import Lease, Purpose
from contracts.rollout import RolloutGroup


class Outcomes(Protocol):
    """Who hears what became of leases: the controller."""

    def sampled(self, groups: Sequence[RolloutGroup]) -> None: ...

    def sampling_failed(self, leases: Sequence[Lease], error: Exception, *, crashed_alone: bool = False) -> None: ...


class Dispatcher:
    """Serves seats. spare_lag: how many versions behind the newest a group that is sampled now may be. clock: wall-clock
    seconds, for events."""

    def __init__(
        self,
        config: RunConfig,
        queue: WorkQueue,
        registry: AdapterRegistry,
        recorder: Recorder,
        changed: Signal,
        outcomes: Outcomes,
        spare_lag: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._drain_s = config.cluster.drain_s
        self._grace_s = config.cluster.grace_s  # for verification and the way back
        self._queue = queue
        self._registry = registry
        self._recorder = recorder
        self._changed = changed
        self._outcomes = outcomes
        self._spare_lag = spare_lag
        self._clock = clock

    async def serve(self, seat: Seat) -> Exception | None:
        """Returns None when the worker has drained, the reason when it is lost or retired. Raises what stops the run.

        Consumes leases; produces calls; waits for leases, room or a version; unblocked by the signal.
        """
        follow = asyncio.ensure_future(self._follow(seat))
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
                    await self._changed.wait()
            return seat.reason
        finally:
            seat.lose(PartLostError(f"{seat.worker_id} left the run"))
            await cancelled([follow, *seat.calls])

    def _give(self, seat: Seat) -> bool:
        """Hand over the next leases if there are any and the worker has room."""
        room = seat.room(self._registry.newest, self._spare_lag())
        if room <= 0:
            return False
        leases = self._queue.dispatch(seat.version, room, one=seat.settings.continuous, idle=seat.rows == 0)
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
        alone = leases[0].attempt > 0
        try:
            async with asyncio.timeout(leases[0].deadline_s + self._grace_s):
                if leases[0].purpose is Purpose.EVAL:  # newer versions may have pushed this one out
                    await seat.handle.adopt(self._registry.reference(leases[0].policy_version))
                groups = await seat.handle.sample(leases)
        except (AdapterMissingError, ProofError, ValueError) as error:
            self._outcomes.sampling_failed(leases, error)
        except (EngineError, TimeoutError) as error:
            seat.suspect()
            self._outcomes.sampling_failed(leases, _told(seat, error), crashed_alone=alone)
        except PartLostError as error:
            seat.lose(error)
            self._outcomes.sampling_failed(leases, error, crashed_alone=alone)
        except asyncio.CancelledError:
            for lease in reversed(leases):
                self._queue.put_back(lease)
            raise
        else:
            self._outcomes.sampled(groups)
        finally:
            seat.rows -= rows
            self._changed.notify()

    async def _follow(self, seat: Seat) -> None:
        """Consumes published versions; produces proven ones; waits for the next; unblocked by the signal."""
        while seat.state is not SeatState.GONE:
            newest = self._registry.newest
            if seat.version >= newest or seat.state is SeatState.DRAINING:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout(seat.settings.lease_deadline_s + self._grace_s):
                    await seat.handle.adopt(self._registry.reference(newest))
            except (ProofError, ValueError) as error:
                self._refused(seat, newest, error)
            except PartLostError as error:
                seat.lose(error)
            except (EngineError, AdapterMissingError, TimeoutError) as error:
                seat.suspect()
                told = str(_told(seat, error))
                self._recorder.event("adopt_failed", worker=seat.worker_id, version=newest, error=told)
                await self._changed.wait(timeout_s=1.0)
            else:
                seat.proven(newest)
                self._recorder.event("proven", worker=seat.worker_id, version=newest)
            self._changed.notify()

    def _refused(self, seat: Seat, version: int, error: Exception) -> None:
        retired = seat.refused(error)
        self._recorder.incident(
            "version_refused",
            str(error),
            worker=seat.worker_id,
            version=version,
            refusals=seat.refusals,
            retired=retired,
        )

    async def _check_health(self, seat: Seat) -> None:
        """A real one-token generation. A worker without a version yet has nothing to generate with: it must adopt."""
        deadline_s = seat.settings.health_deadline_s
        try:
            async with asyncio.timeout(deadline_s + self._grace_s):
                if seat.version >= 0:
                    await seat.handle.health(deadline_s)
        except (EngineError, AdapterMissingError, PartLostError, TimeoutError) as error:
            seat.lose(_told(seat, error))
        else:
            seat.cleared()

    async def _drain(self, seat: Seat) -> None:
        """Finish what is in hand, within the bound; what is not finished returns to the queue."""
        if seat.calls:
            await asyncio.wait(seat.calls, timeout=self._drain_s)


def _told(seat: Seat, error: Exception) -> Exception:
    if not isinstance(error, TimeoutError):
        return error
    return EngineError(
        f"{seat.worker_id} gave no sign of life within its deadline; it is checked, and replaced if it is stuck"
    )
