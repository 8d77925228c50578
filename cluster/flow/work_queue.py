"""Leases on their way to a worker and back. A state machine without I/O.

    add -> waiting -> dispatched (at a worker, with the version it will at least be sampled by) -> done
               ^           |  failed: another attempt
               +-----------+

Evaluation leases wait in a queue of their own. Training goes first: an evaluation takes the time that the workers
have to spare, and while both wait one call in EVAL_PERIOD, so that it neither holds the learner up nor starves. Its calls
hold no more tokens than training's: one with a limit four times as long would hold the one worker four times as long.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from contracts.problem import Lease, Purpose

EVAL_PERIOD = 4
"""While training and evaluation leases wait, every EVAL_PERIOD-th call is an evaluation's."""
LEAST_SHARE = 4
"""An evaluation's call takes at least 1 / LEAST_SHARE of the rows: fewer would decode hardly faster."""


class WorkQueue:
    """What waits, and what is at a worker."""

    def __init__(self) -> None:
        self._waiting: dict[Purpose, deque[Lease]] = {Purpose.TRAIN: deque(), Purpose.EVAL: deque()}
        self._dispatched: dict[int, Lease] = {}
        self._training_calls = 0  # since the last call of an evaluation

    def add(self, lease: Lease) -> None:
        self._waiting[lease.purpose].append(lease)

    def dispatch(
        self,
        policy_version: int,
        rows: int,
        *,
        one: bool = False,
        idle: bool = True,
        evaluates: Callable[[int], bool] = lambda _: True,
        training_tokens: int | None = None,
    ) -> list[Lease]:
        """The next call's leases, one kind, one shape; training leases carry the version the worker holds.

        rows: samples the worker has room for; a lease of more goes out alone. one: a single lease per call. idle: the
        worker has nothing else in hand. A lease that failed before goes out alone, to an idle worker, so that what
        fails with it is its own doing. evaluates: whether the worker may serve a version to an evaluation. training_tokens:
        most tokens of a training sample, None where no training is to come.
        """
        purpose = self._next_purpose(evaluates)
        waiting = self._waiting[purpose]
        if not waiting:
            return []
        first = waiting[0]
        if first.attempt > 0 and not idle:
            return []
        self._training_calls = 0 if purpose is Purpose.EVAL else self._training_calls + 1
        leases: list[Lease] = []
        if purpose is Purpose.EVAL and training_tokens is not None:
            rows = _rows_of_evaluation(rows, training_tokens, first.sampling.max_new_tokens)
        limit = 1 if one or first.attempt > 0 else max(1, rows // first.num_rollouts)
        while waiting and len(leases) < limit and _same_shape(waiting[0], first):
            lease = waiting.popleft()
            leases.append(replace(lease, policy_version=policy_version) if purpose is Purpose.TRAIN else lease)
        self._dispatched |= {lease.lease_id: lease for lease in leases}
        return leases

    def returned(self, lease: Lease) -> None:
        """The call failed: the lease waits for its next attempt, first in line."""
        del self._dispatched[lease.lease_id]
        self._waiting[lease.purpose].appendleft(replace(lease, attempt=lease.attempt + 1))

    def put_back(self, lease: Lease) -> None:
        """The worker left before it was done, which says nothing of the lease: first in line, no attempt spent."""
        del self._dispatched[lease.lease_id]
        self._waiting[lease.purpose].appendleft(lease)

    def withdraw_evaluations(self, policy_version: int) -> list[Lease]:
        """Those of a version that wait, as if they were at a worker: whoever takes them says `done`."""
        waiting = self._waiting[Purpose.EVAL]
        found = [lease for lease in waiting if lease.policy_version == policy_version]
        self._waiting[Purpose.EVAL] = deque(lease for lease in waiting if lease.policy_version != policy_version)
        self._dispatched |= {lease.lease_id: lease for lease in found}
        return found

    def done(self, lease_id: int) -> None:
        """The lease left the queue for good: sampled, or given up."""
        del self._dispatched[lease_id]

    def lease(self, lease_id: int) -> Lease:
        """A lease that is at a worker."""
        return self._dispatched[lease_id]

    @property
    def training_leases(self) -> int:
        """Training leases that wait or are at a worker."""
        return len(self._waiting[Purpose.TRAIN]) + len(self._at_workers())

    @property
    def at_workers(self) -> int:
        return len(self._dispatched)

    def versions_under_way(self) -> list[int]:
        """Lower bounds of the versions that training leases at workers are sampled by. Waiting leases have none:
        whoever samples them will use the newest version of that time."""
        return [lease.policy_version for lease in self._at_workers()]

    def versions_needed(self) -> set[int]:
        """Exact versions that evaluation leases ask for."""
        leases = [*self._waiting[Purpose.EVAL], *self._dispatched.values()]
        return {lease.policy_version for lease in leases if lease.purpose is Purpose.EVAL}

    def _at_workers(self) -> list[Lease]:
        return [lease for lease in self._dispatched.values() if lease.purpose is Purpose.TRAIN]

    def _next_purpose(self, evaluates: Callable[[int], bool]) -> Purpose:
        evaluations = self._waiting[Purpose.EVAL]
        if not evaluations or not evaluates(evaluations[0].policy_version):
            return Purpose.TRAIN
        starved = self._training_calls >= EVAL_PERIOD - 1
        return Purpose.EVAL if starved or not self._waiting[Purpose.TRAIN] else Purpose.TRAIN


def _rows_of_evaluation(rows: int, training_tokens: int, eval_tokens: int) -> int:
    """As many tokens as a call of training has, within limits."""
    return min(rows, max(rows * training_tokens // eval_tokens, rows // LEAST_SHARE))


def _same_shape(lease: Lease, first: Lease) -> bool:
    return (
        lease.attempt == first.attempt
        and lease.num_rollouts == first.num_rollouts
        and lease.sampling == first.sampling
        and (lease.purpose is Purpose.TRAIN or lease.policy_version == first.policy_version)
    )
