"""The ledger: what became of every problem that was issued. A state machine without I/O of its own.

    issue -> IN_FLIGHT (leased, sampled, scored; may return for another attempt)
                 -> BUFFERED -> TRAINED
                 -> DROPPED(reason)   a finished group that is not trained
                 -> FAILED(reason)    no attempt gave a group

At any moment issued = trained + dropped + failed + in flight + buffered. `check` asserts it after
every update against what the controller really holds; `audit`, at checkpoints, also counts every fate afresh.
Events go to `sink`, which writes them.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from contracts.errors import LedgerError


class LeaseStatus(StrEnum):
    """Where a lease's group is: the first two are under way, the last three are final."""

    IN_FLIGHT = "in_flight"
    BUFFERED = "buffered"
    TRAINED = "trained"
    DROPPED = "dropped"
    FAILED = "failed"


STATUSES = tuple(LeaseStatus)
_ALLOWED = {
    LeaseStatus.IN_FLIGHT: {LeaseStatus.BUFFERED, LeaseStatus.DROPPED, LeaseStatus.FAILED},
    LeaseStatus.BUFFERED: {LeaseStatus.TRAINED, LeaseStatus.DROPPED},
}


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One change of fate. policy_version: the version the group was trained into, else -1."""

    lease_id: int
    problem_id: str
    fate: LeaseStatus
    reason: str = ""
    policy_version: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class LedgerSnapshot:
    """The ledger at one moment, a column each, leases in order; N leases.

    fates_N: uint8, indices into STATUSES. problems_N: problem ids. into_N: int32, the version that a lease was trained
    into, else -1. reasons: of dropped and failed leases, by lease id.
    """

    fates_N: NDArray[np.uint8]
    problems_N: tuple[str, ...]
    into_N: NDArray[np.int32]
    reasons: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.problems_N)

    def events(self) -> Iterator[LedgerEvent]:
        """The shortest history that leads to these books."""
        for lease_id, (code, problem_id) in enumerate(zip(self.fates_N, self.problems_N, strict=True)):
            fate = STATUSES[code]
            yield LedgerEvent(lease_id, problem_id, LeaseStatus.IN_FLIGHT)
            if fate in (LeaseStatus.BUFFERED, LeaseStatus.TRAINED):
                yield LedgerEvent(lease_id, problem_id, LeaseStatus.BUFFERED)
            if fate not in (LeaseStatus.IN_FLIGHT, LeaseStatus.BUFFERED):
                reason, into = self.reasons.get(lease_id, ""), int(self.into_N[lease_id])
                yield LedgerEvent(lease_id, problem_id, fate, reason, into)


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """Leases by status; issued is the sum of the others."""

    issued: int
    trained: int
    dropped: int
    failed: int
    in_flight: int
    buffered: int


class Ledger:
    """Every training lease's fate. Evaluation leases are not booked: they take no slots.

    A lease costs 13 bytes and a name that its problem's other leases share: runs of months book millions.
    """

    def __init__(self, sink: Callable[[LedgerEvent], None]) -> None:
        self._sink = sink
        self._fates = bytearray()  # by lease id, indices into STATUSES
        self._problems: list[str] = []
        self._into = array("i")  # the version that a lease was trained into, else -1
        self._names: dict[str, str] = {}
        self._why: dict[int, str] = {}
        self._reasons: Counter[str] = Counter()
        self._counts: Counter[LeaseStatus] = Counter()

    @property
    def next_lease_id(self) -> int:
        return len(self._fates)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many problems were dropped or failed, by reason."""
        return dict(self._reasons)

    def restore(self, event: LedgerEvent) -> None:
        """Book what an earlier process booked and wrote down; nothing is written again."""
        sink, self._sink = self._sink, _forget
        try:
            if event.fate is LeaseStatus.IN_FLIGHT:
                if event.lease_id != self.next_lease_id:
                    raise LedgerError(
                        f"the log issues lease {event.lease_id} after {self.next_lease_id} leases: it is not one run's log"
                    )
                self.issue(event.problem_id)
            else:
                self._move(event.lease_id, event.fate, event.reason, event.policy_version)
        finally:
            self._sink = sink

    def with_status(self, fate: LeaseStatus) -> list[int]:
        """Lease ids, ascending."""
        code = STATUSES.index(fate)
        return [lease_id for lease_id, found in enumerate(self._fates) if found == code]

    def snapshot(self) -> LedgerSnapshot:
        """A copy that stays as it is."""
        fates_N = np.frombuffer(bytes(self._fates), np.uint8)
        return LedgerSnapshot(fates_N, tuple(self._problems), np.array(self._into, np.int32), dict(self._why))

    def load(self, books: LedgerSnapshot) -> None:
        """Begin with what a checkpoint kept; nothing is written again."""
        assert not self._fates, "the books are not empty"
        self._fates = bytearray(books.fates_N.tobytes())
        self._problems = [self._names.setdefault(problem_id, problem_id) for problem_id in books.problems_N]
        self._into = array("i", books.into_N.tolist())
        self._why = dict(books.reasons)
        self._reasons = Counter(self._why.values())
        self._counts = self._recount()

    def issue(self, problem_id: str) -> int:
        """Book a problem as issued and in flight; returns its lease id."""
        lease_id = self.next_lease_id
        self._fates.append(STATUSES.index(LeaseStatus.IN_FLIGHT))
        self._problems.append(self._names.setdefault(problem_id, problem_id))
        self._into.append(-1)
        self._counts[LeaseStatus.IN_FLIGHT] += 1
        self._sink(LedgerEvent(lease_id, problem_id, LeaseStatus.IN_FLIGHT))
        return lease_id

    def buffered(self, lease_id: int) -> None:
        self._move(lease_id, LeaseStatus.BUFFERED)

    def trained(self, lease_id: int, policy_version: int) -> None:
        self._move(lease_id, LeaseStatus.TRAINED, policy_version=policy_version)

    def dropped(self, lease_id: int, reason: str) -> None:
        self._move(lease_id, LeaseStatus.DROPPED, reason)

    def failed(self, lease_id: int, reason: str) -> None:
        self._move(lease_id, LeaseStatus.FAILED, reason)

    def counts(self) -> LedgerCounts:
        return LedgerCounts(
            issued=len(self._fates),
            trained=self._counts[LeaseStatus.TRAINED],
            dropped=self._counts[LeaseStatus.DROPPED],
            failed=self._counts[LeaseStatus.FAILED],
            in_flight=self._counts[LeaseStatus.IN_FLIGHT],
            buffered=self._counts[LeaseStatus.BUFFERED],
        )

    def check(self, *, in_flight: int, buffered: int) -> None:
        """Raises LedgerError unless the books agree with what the controller really holds."""
        counts = self.counts()
        booked = counts.trained + counts.dropped + counts.failed + counts.in_flight + counts.buffered
        if counts.issued != booked or counts.in_flight != in_flight or counts.buffered != buffered:
            raise LedgerError(
                f"the ledger does not balance: {counts}; held by the controller: {in_flight} in flight, {buffered} "
                "buffered. This is a bug in memr; the run stops so that no rollout is lost or trained twice. Please "
                "report it with the run's ledger/ folder"
            )

    def audit(self) -> None:
        """Raises LedgerError unless counting every fate afresh gives the running counts."""
        recount = self._recount()
        if recount != +self._counts:
            raise LedgerError(f"the ledger's counts {dict(self._counts)} differ from a recount {dict(recount)}")

    def _recount(self) -> Counter[LeaseStatus]:
        return Counter({STATUSES[code]: count for code, count in Counter(self._fates).items()})

    def _move(self, lease_id: int, fate: LeaseStatus, reason: str = "", policy_version: int = -1) -> None:
        current = STATUSES[self._fates[lease_id]] if 0 <= lease_id < len(self._fates) else None
        if current is None or fate not in _ALLOWED.get(current, set()):
            raise LedgerError(f"lease {lease_id} is {current or 'unknown'} and cannot become {fate}")
        self._fates[lease_id] = STATUSES.index(fate)
        self._counts[current] -= 1
        self._counts[fate] += 1
        if reason:
            self._reasons[reason] += 1
            self._why[lease_id] = reason
        if policy_version >= 0:
            self._into[lease_id] = policy_version
        self._sink(LedgerEvent(lease_id, self._problems[lease_id], fate, reason, policy_version))


def _forget(_event: LedgerEvent) -> None:
    """A sink for what is written already."""
