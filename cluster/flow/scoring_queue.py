"""The way through memory: from a worker's group to a scored one, in order, with a deadline.

Consumes sampled groups (`add`); produces scored groups (`Outlet.deliver`); waits for the memory service, at most
`deadline_s` per group under the late policy `zero`; unblocked by `add` and by the service's answers.

One call at a time, so that memory sees groups in the order of arrival; each call takes what has arrived, up to
`GROUPS_PER_CALL`, so that the encoder's batches grow with the load and no call outlasts its time limit. Late groups: `wait` counts them and waits on;
`zero` lets the whole group go on without bonus. Late means without bonus, not forgotten: a group that went on
before it was sent keeps its place in the queue, and memory gets it in its order, once. Where no bonus can be paid (weight 0,
annealed away, in a warm-up) every group goes on at once in this way, without being late: who pays nothing does not wait.

A group stands in up to four of five rows, by lease, so that each call costs what is new and not what waits:

    waiting    has not gone on        unsent   for the next call       overdue   gone on and unsent, oldest first
    unanswered gone on, unanswered    on_time  not late yet, oldest first
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.handles import MemoryHandle
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup
from memory_service.config import MemorySettings

MAX_UNANSWERED = 4096
"""Groups that went on without bonus and that memory has yet to see: where memory is slower than the run for good, the
oldest go unremembered, and are counted."""
GROUPS_PER_CALL = 64
"""Of one call of memory, whatever has piled up: a call has to end within cluster.memory_call_s with a slow encoder too, as
one that is given up is sent again, as large. Calls in lease order are not cut: they are one for a batch, for the same bytes."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    group: RolloutGroup
    arrived_s: float


Row = OrderedDict[int, _Arrival]


class Outlet(Protocol):
    """Where scored groups go."""

    def answered(self, scored_groups: Sequence[ScoredGroup]) -> None:
        """One answer of memory, before its groups are delivered."""

    def deliver(self, scored: ScoredGroup) -> None: ...


class ScoringQueue:
    """memory None: every group passes at once, without bonus (memory.profile = "off"). all_wait: a group waits for memory
    whether it may earn a bonus or not, so that memory's order, and with it its bytes, are the run's (max_policy_lag 0)."""

    def __init__(
        self,
        memory: MemoryHandle | None,
        settings: MemorySettings,
        outlet: Outlet,
        clock: Callable[[], float],
        *,
        all_wait: bool,
        max_unanswered: int = MAX_UNANSWERED,
    ) -> None:
        self._memory, self._settings, self._outlet = memory, settings, outlet
        self._clock = clock
        self._bonus_rule, self._all_wait = settings.bonus_rule, all_wait
        self._max_unanswered = max_unanswered
        self._waiting, self._unanswered, self._unsent = Row(), Row(), Row()
        self._overdue, self._on_time = Row(), Row()
        self.late_groups = 0
        self.unremembered_groups = 0
        self.report: MemoryReport | None = None  # as of the last answer

    def __len__(self) -> int:
        """Groups that have not gone on yet."""
        return len(self._waiting)

    @property
    def versions(self) -> list[int]:
        return [arrival.group.policy_version for arrival in self._waiting.values()]

    def add(self, group: RolloutGroup) -> None:
        if self._memory is None:
            self._outlet.deliver(ScoredGroup.without_bonus(group))
            return
        arrival = _Arrival(group, self._clock())
        self._waiting[group.lease_id] = self._unsent[group.lease_id] = arrival
        if self._all_wait or self._bonus_rule.is_on(group.policy_version):
            self._on_time[group.lease_id] = arrival
        else:
            self._go_on_without_bonus(group.lease_id, arrival, late=False)

    def add_unanswered(self, group: RolloutGroup) -> None:
        """A group that an earlier process let go on without bonus before memory knew of it."""
        arrival = _Arrival(group, self._clock())
        for row in (self._unanswered, self._unsent, self._overdue):
            row[group.lease_id] = arrival
        self._keep_to_max_unanswered()

    @property
    def groups(self) -> list[RolloutGroup]:
        return [arrival.group for arrival in self._waiting.values()]

    @property
    def unanswered(self) -> list[RolloutGroup]:
        """What went on without bonus and memory has not answered for."""
        return [arrival.group for arrival in self._unanswered.values()]

    @property
    def has_new(self) -> bool:
        return bool(self._unsent)

    async def score_new(self, *, in_lease_order: bool) -> None:
        """One call with what arrived first and is unsent; returns when memory has answered it. in_lease_order: with all of
        it, sorted, else with `GROUPS_PER_CALL` at most."""
        assert self._memory is not None
        groups = self._take_unsent(len(self._unsent) if in_lease_order else GROUPS_PER_CALL)
        if in_lease_order:
            groups.sort(key=lambda group: group.lease_id)
        call = asyncio.ensure_future(self._memory.score(groups))
        try:
            while not call.done():
                await asyncio.wait([call], timeout=self._until_next_deadline())
                if not call.done():
                    self._treat_late()
            scored_groups, self.report = call.result()
            self._outlet.answered(scored_groups)
            for scored in scored_groups:
                self._release(scored)
        finally:
            call.cancel()

    def _take_unsent(self, at_most: int) -> list[RolloutGroup]:
        """In the order of their arrival."""
        groups: list[RolloutGroup] = []
        while self._unsent and len(groups) < at_most:
            lease_id, arrival = self._unsent.popitem(last=False)
            self._overdue.pop(lease_id, None)
            groups.append(arrival.group)
        return groups

    def _until_next_deadline(self) -> float | None:
        first = next(iter(self._on_time.values()), None)  # they came in this order, and all have the same time
        return max(0.01, first.arrived_s + self._settings.deadline_s - self._clock()) if first is not None else None

    def _treat_late(self) -> None:
        now = self._clock()
        while self._on_time and now - next(iter(self._on_time.values())).arrived_s >= self._settings.deadline_s:
            lease_id, arrival = self._on_time.popitem(last=False)
            self.late_groups += 1
            if self._settings.late_policy == "zero":
                self._go_on_without_bonus(lease_id, arrival, late=True)

    def _go_on_without_bonus(self, lease_id: int, arrival: _Arrival, *, late: bool) -> None:
        self._unanswered[lease_id] = self._waiting.pop(lease_id)
        if lease_id in self._unsent:
            self._overdue[lease_id] = arrival
        self._outlet.deliver(ScoredGroup.without_bonus(arrival.group, late=late))
        self._keep_to_max_unanswered()

    def _keep_to_max_unanswered(self) -> None:
        if len(self._overdue) > self._max_unanswered:
            oldest, _ = self._overdue.popitem(last=False)
            del self._unsent[oldest], self._unanswered[oldest]
            self.unremembered_groups += 1

    def _release(self, scored: ScoredGroup) -> None:
        """Once per group: an answer for a group that went on without bonus is too late for its advantages."""
        lease_id = scored.group.lease_id
        self._on_time.pop(lease_id, None)
        self._unanswered.pop(lease_id, None)
        if self._waiting.pop(lease_id, None) is not None:
            self._outlet.deliver(scored)
