"""What a call of the scoring queue costs goes with what is new, not with how many groups memory has yet to hear of. Counted, not
timed: instructions of the interpreter."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.fakes import make_group
from tests.unit.cluster.test_scoring_queue import Queue

FEW, MANY = 10, 3000


def instructions(work: Callable[[], Any]) -> int:
    """Of the interpreter, in whatever Python code `work` calls."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks when tracing begins whether any frame wants instructions
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


async def behind(groups: int, *, sent: bool = False) -> Queue:
    """A queue whose memory is busy with one group while `groups` others went on without bonus, unsent; or with those."""
    at = Queue(max_unanswered=2 * MANY)
    at.queue.add(make_group(0))
    call = await at.call()
    for lease_id in range(1, groups + 1):
        at.queue.add(make_group(lease_id))
    at.now = 2.0
    while len(at.delivered) < groups + 1:
        await at.pause()
    if sent:
        await at.answer(call)
        call = await at.call(in_lease_order=True)  # all of them
    call.cancel()
    return at


CALLS: dict[str, Callable[[Queue], Any]] = {
    "add": lambda at: at.queue.add(make_group(9999)),
    "len": lambda at: len(at.queue),
    "versions": lambda at: at.queue.versions,
    "groups": lambda at: at.queue.groups,
    "has_new": lambda at: at.queue.has_new,
    "late": lambda at: at.queue._treat_late(),
    "next deadline": lambda at: at.queue._until_next_deadline(),
}


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_costs_the_same_however_many_groups_are_not_yet_remembered(name: str, sent: bool) -> None:
    few, many = [await behind(groups, sent=sent) for groups in (FEW, MANY)]
    cost = [instructions(lambda at=at: CALLS[name](at)) for at in (few, many)]  # type: ignore[misc]
    assert cost[0] > 0, "the work was seen"
    assert cost[1] <= cost[0]


async def test_one_group_that_grows_late_costs_the_same_however_many_are_not_yet_remembered() -> None:
    cost = []
    for at in [await behind(groups) for groups in (FEW, MANY)]:
        at.queue.add(make_group(9999))
        at.now = 4.0
        cost.append(instructions(at.queue._treat_late))
        assert at.delivered[-1] == (9999, True)
    assert cost[1] <= cost[0]


async def test_an_answer_costs_what_it_holds() -> None:
    """3,000 groups in one call, then one: the second costs what a call of one costs."""
    cost = []
    for groups in (FEW, MANY):
        at = await behind(groups)
        await at.answer(await at.call(in_lease_order=True))
        at.queue.add(make_group(9999))
        at.queue.add(make_group(9998))
        [scored], _ = await at.memory.answer_now([make_group(9999)])
        cost.append(instructions(lambda at=at, scored=scored: at.queue._release(scored)))  # type: ignore[misc]
    assert cost[0] == cost[1]
