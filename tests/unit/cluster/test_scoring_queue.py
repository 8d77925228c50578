"""The way through memory on fakes: late under `zero` means without bonus, not forgotten."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cluster.flow.scoring_queue import GROUPS_PER_CALL, ScoringQueue
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup
from memory_service.config import MemorySettings
from tests.fakes import FakeMemory, make_group


class SlowMemory(FakeMemory):
    """Answers a call when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def answer_now(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return await super().score(groups)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        answer = await super().score(groups)
        await self.may_answer.wait()
        self.may_answer.clear()
        return answer


class Queue:
    """A ScoringQueue on a clock of ours, and what comes out of it. memory: settings beside a deadline of 0.02 s."""

    def __init__(self, max_unanswered: int = 100, **memory: Any) -> None:
        self.now = 0.0
        self.memory = SlowMemory()
        self.delivered: list[tuple[int, bool]] = []
        settings = MemorySettings.model_validate(
            {"profile": "memr", "deadline_s": 0.02, "late_policy": "zero", **memory}
        )
        self.queue = ScoringQueue(
            self.memory, settings, self, lambda: self.now, all_wait=False, max_unanswered=max_unanswered
        )

    def answered(self, scored_groups: Sequence[ScoredGroup]) -> None: ...

    def deliver(self, scored: ScoredGroup) -> None:
        self.delivered.append((scored.group.lease_id, scored.late))

    @property
    def told(self) -> list[tuple[int, ...]]:
        return [event[1] for event in self.memory.events]

    async def call(self, *, in_lease_order: bool = False) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self.queue.score_new(in_lease_order=in_lease_order))
        await self.pause()
        return task

    async def pause(self) -> None:
        """Long enough for what waits on a deadline to look again."""
        await asyncio.sleep(0.02)

    async def answer(self, call: asyncio.Task[None]) -> None:
        self.memory.may_answer.set()
        await call


async def test_what_passed_its_deadline_unsent_is_told_next_in_its_place() -> None:
    at = Queue()
    at.queue.add(make_group(0))
    call = await at.call()
    at.queue.add(make_group(2))
    at.queue.add(make_group(1))
    at.now = 2.0
    await asyncio.sleep(0.05)
    assert at.delivered == [(0, True), (2, True), (1, True)]
    assert (len(at.queue), at.queue.versions, at.queue.groups) == (0, [], []), "nothing holds a slot or a version"
    assert [group.lease_id for group in at.queue.unanswered] == [0, 2, 1]
    at.queue.add(make_group(3))
    await at.answer(call)
    assert at.queue.has_new
    await at.answer(await at.call())
    assert at.told == [(0,), (2, 1, 3)]
    assert at.delivered == [(0, True), (2, True), (1, True), (3, False)]
    assert (at.queue.has_new, at.queue.unanswered, at.queue.late_groups) == (False, [], 3)


async def test_what_an_earlier_process_left_untold_is_told_and_not_delivered_again() -> None:
    at = Queue()
    at.queue.add_unanswered(make_group(7))
    assert (len(at.queue), at.queue.has_new) == (0, True)
    await at.answer(await at.call())
    assert (at.told, at.delivered) == ([(7,)], [])


async def test_a_memory_that_is_too_slow_for_good_leaves_the_oldest_out_and_counts_them() -> None:
    at = Queue(max_unanswered=2)
    at.queue.add(make_group(0))
    call = await at.call()
    for lease_id in (1, 2, 3, 4):
        at.queue.add(make_group(lease_id))
    at.now = 2.0
    await asyncio.sleep(0.05)
    assert len(at.delivered) == 5
    assert at.queue.unremembered_groups == 2
    await at.answer(call)
    await at.answer(await at.call())
    assert at.told == [(0,), (3, 4)]


async def test_a_group_that_may_earn_nothing_goes_on_at_once_without_being_late() -> None:
    at = Queue(anneal_steps=3)
    at.queue.add(make_group(0, version=3))
    at.queue.add(make_group(1, version=2))
    assert at.delivered == [(0, False)]
    assert ([group.lease_id for group in at.queue.unanswered], len(at.queue)) == ([0], 1)
    await at.answer(await at.call())
    assert at.told == [(0, 1)]
    assert at.delivered == [(0, False), (1, False)]
    assert (at.queue.unanswered, at.queue.late_groups) == ([], 0)


async def test_what_piled_up_is_told_in_calls_of_a_bounded_size_in_the_order_of_arrival() -> None:
    """One call with all of it would outlast cluster.memory_call_s with a slow encoder, and be sent again, forever."""
    many = 2 * GROUPS_PER_CALL + 1
    at = Queue(max_unanswered=many, profile="remember")
    for lease_id in reversed(range(many)):
        at.queue.add(make_group(lease_id))
    sizes = []
    while at.queue.has_new:
        await at.answer(await at.call())
        sizes.append((len(at.told[-1]), len(at.queue.unanswered)))
    assert sizes == [(GROUPS_PER_CALL, GROUPS_PER_CALL + 1), (GROUPS_PER_CALL, 1), (1, 0)]
    assert [lease for told in at.told for lease in told] == list(reversed(range(many)))


async def test_a_call_in_lease_order_is_one_however_many_groups_it_has() -> None:
    at = Queue()
    for lease_id in reversed(range(GROUPS_PER_CALL + 1)):
        at.queue.add(make_group(lease_id))
    await at.answer(await at.call(in_lease_order=True))
    assert (at.told, at.queue.has_new) == ([tuple(range(GROUPS_PER_CALL + 1))], False)


async def test_a_sent_group_no_longer_counts_for_how_many_may_be_unanswered() -> None:
    at = Queue(max_unanswered=GROUPS_PER_CALL, profile="remember")
    for lease_id in range(GROUPS_PER_CALL):
        at.queue.add(make_group(lease_id))
    call = await at.call()
    for lease_id in range(GROUPS_PER_CALL, 2 * GROUPS_PER_CALL):
        at.queue.add(make_group(lease_id))
    assert at.queue.unremembered_groups == 0
    await at.answer(call)


async def test_what_an_earlier_process_left_untold_has_the_same_bound() -> None:
    at = Queue(max_unanswered=2)
    for lease_id in (5, 6, 7):
        at.queue.add_unanswered(make_group(lease_id))
    assert ([group.lease_id for group in at.queue.unanswered], at.queue.unremembered_groups) == ([6, 7], 1)
    await at.answer(await at.call())
    assert (at.told, at.delivered) == ([(6, 7)], [])
