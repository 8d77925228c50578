"""The way through memory: from a worker's group to a scored one, in order, with a deadline.

Consumes sampled groups (`add`); produces scored groups (`deliver`); waits for the memory service, at most
`deadline_s` per group under the late policy `zero`; unblocked by `add` and by the service's answers.

One call at a time, so that memory sees groups in the order of arrival; each call takes everything that
has arrived, so that the encoder's batches grow with the load. Late groups: `wait` counts them and waits on;
`zero` lets the whole group go on without bonus, and what memory still says of it is ignored.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.parts import MemoryHandle
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup


@dataclass(slots=True)
class _Arrival:
    group: RolloutGroup
    arrived_s: float
    with_service: bool = False
    late: bool = False


class MemoryLane:
    """memory None: every group passes at once, without bonus (memory.profile = "off"). answered: told of each call's
    answer before its groups are delivered."""

    def __init__(
        self,
        memory: MemoryHandle | None,
        *,
        deadline_s: float,
        late_policy: str,
        deliver: Callable[[ScoredGroup], None],
        answered: Callable[[Sequence[ScoredGroup]], None],
        clock: Callable[[], float],
    ) -> None:
        self._memory = memory
        self._deadline_s = deadline_s
        self._late_policy = late_policy
        self._deliver = deliver
        self._answered = answered
        self._clock = clock
        self._arrivals: dict[int, _Arrival] = {}
        self.late_groups = 0
        self.report: MemoryReport | None = None  # as of the last answer

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def versions(self) -> list[int]:
        return [arrival.group.policy_version for arrival in self._arrivals.values()]

    def add(self, group: RolloutGroup) -> None:
        if self._memory is None:
            self._deliver(ScoredGroup.without_bonus(group))
            return
        self._arrivals[group.lease_id] = _Arrival(group, self._clock())

    @property
    def groups(self) -> list[RolloutGroup]:
        return [arrival.group for arrival in self._arrivals.values() if not arrival.late or self._late_policy != "zero"]

    @property
    def has_new(self) -> bool:
        return any(not arrival.with_service for arrival in self._arrivals.values())

    async def score_new(self, *, in_lease_order: bool) -> None:
        """One call with everything that arrived since the last; returns when memory has answered it."""
        assert self._memory is not None
        new = [arrival for arrival in self._arrivals.values() if not arrival.with_service]
        if in_lease_order:
            new.sort(key=lambda arrival: arrival.group.lease_id)
        for arrival in new:
            arrival.with_service = True
        call = asyncio.ensure_future(self._memory.score([arrival.group for arrival in new]))
        try:
            while not call.done():
                await asyncio.wait([call], timeout=self._until_next_deadline())
                if not call.done():
                    self._treat_late()
            scored_groups, self.report = call.result()
            self._answered(scored_groups)
            for scored in scored_groups:
                self._release(scored)
        finally:
            call.cancel()

    def _until_next_deadline(self) -> float | None:
        on_time = [arrival.arrived_s for arrival in self._arrivals.values() if not arrival.late]
        return max(0.01, min(on_time) + self._deadline_s - self._clock()) if on_time else None

    def _treat_late(self) -> None:
        now = self._clock()
        for arrival in list(self._arrivals.values()):
            if arrival.late or now - arrival.arrived_s < self._deadline_s:
                continue
            arrival.late = True
            self.late_groups += 1
            if self._late_policy == "zero":
                self._release(ScoredGroup.without_bonus(arrival.group, late=True))

    def _release(self, scored: ScoredGroup) -> None:
        """Once per group: an answer for a group that went on without bonus is too late to matter."""
        if self._arrivals.pop(scored.group.lease_id, None) is not None:
            self._deliver(scored)
