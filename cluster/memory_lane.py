"""The way through memory: from a worker's group to a scored one, in order, with a deadline.

Consumes sampled groups (`add`); produces scored groups (`deliver`); waits for the memory service, at most
`deadline_s` per group under the late policy `zero`; unblocked by `add` and by the service's answers.

One call at a time, so that memory sees groups in the order of arrival; each call takes everything that
has arrived, so that the encoder's batches grow with the load. Late groups: `wait` counts them and waits on;
`zero` lets the whole group go on without bonus. Late means without bonus, not forgotten: a group that went on
before it was sent keeps its place in the queue, and memory is told of it in its order, once.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.parts import MemoryHandle
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup

MAX_UNTOLD = 4096
"""Groups that went on without bonus and that memory still has to hear of: where memory is slower than the run for good, the
oldest go unremembered, and are counted."""


@dataclass(slots=True)
class _Arrival:
    """delivered: it went on; only memory still has to hear of it."""

    group: RolloutGroup
    arrived_s: float
    with_service: bool = False
    late: bool = False
    delivered: bool = False


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
        max_untold: int = MAX_UNTOLD,
    ) -> None:
        self._memory = memory
        self._deadline_s = deadline_s
        self._late_policy = late_policy
        self._deliver = deliver
        self._answered = answered
        self._clock = clock
        self._max_untold = max_untold
        self._arrivals: dict[int, _Arrival] = {}
        self.late_groups = 0
        self.unremembered_groups = 0
        self.report: MemoryReport | None = None  # as of the last answer

    def __len__(self) -> int:
        """Groups that have not gone on yet."""
        return len(self._waiting)

    @property
    def _waiting(self) -> list[_Arrival]:
        return [arrival for arrival in self._arrivals.values() if not arrival.delivered]

    @property
    def versions(self) -> list[int]:
        return [arrival.group.policy_version for arrival in self._waiting]

    def add(self, group: RolloutGroup) -> None:
        if self._memory is None:
            self._deliver(ScoredGroup.without_bonus(group))
            return
        self._arrivals[group.lease_id] = _Arrival(group, self._clock())

    def add_untold(self, group: RolloutGroup) -> None:
        """A group that an earlier process let go on without bonus before memory knew of it."""
        self._arrivals[group.lease_id] = _Arrival(group, self._clock(), late=True, delivered=True)

    @property
    def groups(self) -> list[RolloutGroup]:
        return [arrival.group for arrival in self._waiting]

    @property
    def untold(self) -> list[RolloutGroup]:
        """What went on without bonus and memory has not answered for."""
        return [arrival.group for arrival in self._arrivals.values() if arrival.delivered]

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
                arrival.delivered = True
                self._deliver(ScoredGroup.without_bonus(arrival.group, late=True))
        self._bound_untold()

    def _bound_untold(self) -> None:
        unsent = [lease for lease, a in self._arrivals.items() if a.delivered and not a.with_service]
        for lease_id in unsent[: max(0, len(unsent) - self._max_untold)]:
            del self._arrivals[lease_id]
            self.unremembered_groups += 1

    def _release(self, scored: ScoredGroup) -> None:
        """Once per group: an answer for a group that went on without bonus is too late for its advantages."""
        arrival = self._arrivals.pop(scored.group.lease_id, None)
        if arrival is not None and not arrival.delivered:
            self._deliver(scored)
