"""The rollout buffer: scored groups that wait for an update. No I/O, no clock.

`take` decides by docs/architecture.md: the oldest finished groups first, and no batch whose publication
would push a group still under way beyond the lag bound.

    put -> waiting -> take -> in the update -> trained (booked: gone)

A batch leaves with `trained`, never before: whatever ends the run in between, a checkpoint finds it in `groups`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from contracts.rollout import ScoredGroup


def publication_waits_for(
    policy_version: int, max_policy_lag: int, groups_per_batch: int, outside: Collection[int]
) -> int | None:
    """The oldest policy version that would exceed the bound if version + 1 were published now, or None.

    outside: versions of all groups that are not in the batch: buffered, at workers, in memory. Oldest first they fill the
    batches to come: the i-th is trained at policy_version + 1 + i // groups_per_batch at the earliest, which less its own
    version is its lag.
    """
    for i, sampled_by in enumerate(sorted(outside)):
        if policy_version + 1 + i // groups_per_batch - sampled_by > max_policy_lag:
            return sampled_by
    return None


@dataclass(frozen=True, slots=True)
class BufferState:
    """Scored groups that wait for an update: how many, and their size in bytes."""

    groups: int
    nbytes: int


class RolloutBuffer:
    """Scored groups by age (lease id), bounded in bytes. Length, state and `full` are of those that wait; `groups` are
    those in the update too."""

    def __init__(self, groups_per_batch: int, max_policy_lag: int, max_bytes: int) -> None:
        self._groups_per_batch = groups_per_batch
        self._max_policy_lag = max_policy_lag
        self._max_bytes = max_bytes
        self._groups: dict[int, ScoredGroup] = {}
        self._training: dict[int, ScoredGroup] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def groups(self) -> list[ScoredGroup]:
        return [*self._training.values(), *self._groups.values()]

    @property
    def state(self) -> BufferState:
        return BufferState(len(self._groups), self._nbytes)

    @property
    def full(self) -> bool:
        """No admission now. Never true while the learner lacks a batch, or nothing would ever empty it."""
        return self._nbytes > self._max_bytes and len(self._groups) >= self._groups_per_batch

    def put(self, scored: ScoredGroup) -> None:
        assert scored.group.lease_id not in self._groups | self._training, "a lease is buffered once"
        self._groups[scored.group.lease_id] = scored
        self._nbytes += scored.group.nbytes

    def take(self, policy_version: int, under_way: Collection[int]) -> list[ScoredGroup] | None:
        """The next batch, oldest first, or None while it is short or must wait for a group under way.

        With nothing under way there is nothing to wait for: what the publication makes stale is for `drop_stale`.
        """
        assert not self._training, "one batch is in the update at a time"
        if len(self._groups) < self._groups_per_batch:
            return None
        # Oldest version first: that is what the bound is about; lease id settles the rest.
        order = sorted(self._groups.values(), key=lambda s: (s.group.policy_version, s.group.lease_id))
        batch, rest = order[: self._groups_per_batch], order[self._groups_per_batch :]
        outside = [*under_way, *(scored.group.policy_version for scored in rest)]
        waits = publication_waits_for(policy_version, self._max_policy_lag, self._groups_per_batch, outside)
        if waits is not None and under_way:
            return None
        self._remove(batch)
        self._training = {scored.group.lease_id: scored for scored in batch}
        return batch

    def trained(self) -> None:
        """The batch that was taken is booked: it leaves the buffer."""
        self._training = {}

    def drop_stale(self, policy_version: int) -> list[ScoredGroup]:
        """Groups that no update may use any more."""
        stale = [s for s in self._groups.values() if policy_version - s.group.policy_version > self._max_policy_lag]
        self._remove(stale)
        return stale

    def _remove(self, groups: Sequence[ScoredGroup]) -> None:
        for scored in groups:
            del self._groups[scored.group.lease_id]
            self._nbytes -= scored.group.nbytes
