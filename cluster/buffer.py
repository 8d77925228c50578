"""The rollout buffer: scored groups that wait for an update. No I/O, no clock.

`take` decides by docs/architecture.md: the oldest finished groups first, and no batch whose publication
would push a group still under way beyond the lag bound.
"""

from collections.abc import Collection
from dataclasses import dataclass

from contracts.rollout import ScoredGroup


def publication_waits_for(
    policy_version: int, max_policy_lag: int, under_way: Collection[int], left_behind: Collection[int]
) -> int | None:
    """The oldest policy version that would exceed the bound if version + 1 were published now, or None.

    A group sampled at v and trained at the earliest at policy_version + 1 has lag policy_version + 1 - v.
    under_way: versions of leases at workers or in memory. left_behind: versions of buffered groups outside the batch.
    """
    oldest = min([*under_way, *left_behind], default=policy_version + 1)
    return oldest if policy_version + 1 - oldest > max_policy_lag else None


@dataclass(frozen=True, slots=True)
class BufferState:
    groups: int
    nbytes: int


class RolloutBuffer:
    """Scored groups by age (lease id), bounded in bytes."""

    def __init__(self, groups_per_batch: int, max_policy_lag: int, max_bytes: int) -> None:
        self._groups_per_batch = groups_per_batch
        self._max_policy_lag = max_policy_lag
        self._max_bytes = max_bytes
        self._groups: dict[int, ScoredGroup] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def groups(self) -> list[ScoredGroup]:
        return list(self._groups.values())

    @property
    def state(self) -> BufferState:
        return BufferState(len(self._groups), self._nbytes)

    @property
    def full(self) -> bool:
        """No admission now. Never true while the learner lacks a batch, or nothing would ever empty it."""
        return self._nbytes > self._max_bytes and len(self._groups) >= self._groups_per_batch

    def put(self, scored: ScoredGroup) -> None:
        assert scored.group.lease_id not in self._groups, "a lease is buffered once"
        self._groups[scored.group.lease_id] = scored
        self._nbytes += scored.group.nbytes

    def take(self, policy_version: int, under_way: Collection[int]) -> list[ScoredGroup] | None:
        """The next batch, oldest first, or None while it is short or must wait for a group under way."""
        if len(self._groups) < self._groups_per_batch:
            return None
        # Oldest version first: that is what the bound is about; lease id settles the rest.
        order = sorted(self._groups.values(), key=lambda s: (s.group.policy_version, s.group.lease_id))
        batch, rest = order[: self._groups_per_batch], order[self._groups_per_batch :]
        left_behind = [scored.group.policy_version for scored in rest]
        if publication_waits_for(policy_version, self._max_policy_lag, under_way, left_behind) is not None:
            return None
        for scored in batch:
            del self._groups[scored.group.lease_id]
            self._nbytes -= scored.group.nbytes
        return batch
