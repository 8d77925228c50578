"""Whose fault is a refused version? What each worker of one pool said of each version, and what follows. No I/O.

Workers of one pool load the same bytes into the same engine with the same data type: what one of them proves, all
can. Of another pool that says nothing: float32 may prove what bfloat16 must refuse.

refused once                               -> AGAIN: fresh bytes, the same worker
twice, and another has proven it           -> WORKER: this worker is at fault, it is retired
twice by it alone, others have yet to try  -> WAIT: theirs decides
by two workers, or twice by the only one   -> VERSION: the bytes are the same for all, so it is tolerance or the
                                              learner, not a worker; the pool skips the version
"""

from collections import Counter
from collections.abc import Collection
from enum import StrEnum

ENOUGH = 2
"""Refusals after which fresh bytes are not tried again."""

REMEMBERED = 16
"""Versions whose votes are kept."""


class Blame(StrEnum):
    """What a refused proof says so far: prove again, wait for other workers, or replace the worker or the version."""

    AGAIN = "again"
    WAIT = "wait"
    WORKER = "worker"
    VERSION = "version"


class ProofVotes:
    """Of all workers of one pool, by version."""

    def __init__(self) -> None:
        self._refusals: dict[int, Counter[str]] = {}
        self._proven: set[int] = set()

    def proven(self, version: int, worker_id: str) -> None:
        """The worker serves it, whatever it said before."""
        self._proven.add(version)
        self._refusals.get(version, Counter()).pop(worker_id, None)
        self._forget()

    def refused(self, version: int, worker_id: str) -> int:
        """Count it; returns how often this worker has refused this version."""
        self._refusals.setdefault(version, Counter())[worker_id] += 1
        self._forget()
        return self._refusals[version][worker_id]

    def blame(self, version: int, worker_id: str, undecided: Collection[str]) -> Blame | None:
        """What to do about this worker and this version; None where it never refused it.

        undecided: other workers of the pool that have not proven this version and are able to try.
        """
        refusals = self._refusals.get(version, Counter())
        if not refusals[worker_id]:
            return None
        if version in self._proven:
            return Blame.WORKER if refusals[worker_id] >= ENOUGH else Blame.AGAIN
        if sum(1 for count in refusals.values() if count) > 1:
            return Blame.VERSION
        if refusals[worker_id] < ENOUGH:
            return Blame.AGAIN
        return Blame.WAIT if any(other not in refusals for other in undecided) else Blame.VERSION

    def _forget(self) -> None:
        for version in sorted(self._refusals)[:-REMEMBERED]:
            del self._refusals[version]
        self._proven = set(sorted(self._proven)[-REMEMBERED:])
