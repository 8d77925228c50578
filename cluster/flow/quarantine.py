"""Poison problems: what crashes an engine or cannot be judged, twice, is not issued again in this run. No I/O."""

from collections import Counter

QUARANTINED = "quarantined"
"""Reason of the ledger entry with which a problem goes in; a run that is resumed finds it there."""
SKIPPED = "in quarantine"
"""Reason of a lease that was issued for such a problem and never sampled."""
TWICE = 2


class Quarantine:
    """By problem id."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._inside: set[str] = set()

    def __contains__(self, problem_id: str) -> bool:
        return problem_id in self._inside

    def __len__(self) -> int:
        return len(self._inside)

    def add(self, problem_id: str) -> None:
        self._inside.add(problem_id)

    def strike(self, problem_id: str) -> bool:
        """Count one crash, alone with its worker, or one group that could not be judged; True when it goes in."""
        self._counts[problem_id] += 1
        if self._counts[problem_id] < TWICE or problem_id in self._inside:
            return False
        self._inside.add(problem_id)
        return True
