"""Problems that came to nothing, in a row: a few are data, many are a fault that stops the run."""

from cluster.record.judge_faults import first_reason
from contracts.errors import RunStopped
from contracts.rollout import RolloutGroup


class FailureStreak:
    """Counts until something good happens; raises RunStopped at `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def good(self) -> None:
        self._count = 0

    def failed(self, attempts: int, error: Exception) -> None:
        """A problem failed in every attempt."""
        self._count += 1
        self._stop_at_limit(
            f"problems in a row failed in all {attempts} attempts or could not be trained on; the last reason: {error}. "
            "events.jsonl has all of them"
        )

    def untrainable(self, group: RolloutGroup) -> None:
        """A group came back with too few trainable rollouts."""
        self._count += 1
        endings = ", ".join(sorted({rollout.finish_reason.value for rollout in group.rollouts}))
        if reason := first_reason(group):
            self._stop_at_limit(
                f"problems in a row could not be judged: {reason}. Mend it, see what `memr check-task` says, and `memr resume`"
            )
        self._stop_at_limit(
            f"problems in a row gave fewer than two trainable rollouts; the last group's ended by {endings}. Raise "
            "actors.lease_deadline_s, or see what `memr check-task` says of the verifier"
        )

    def _stop_at_limit(self, message: str) -> None:
        if self._count >= self._limit:
            raise RunStopped(f"{self._count} {message}")
