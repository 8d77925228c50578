"""The ledger balances, and says so when it does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.record.ledger import LeaseStatus, Ledger, LedgerEvent
from cluster.record.ledger_table import ledger_from_table, ledger_to_table
from contracts.errors import LedgerError


def test_every_fate_is_counted_once() -> None:
    events: list[LedgerEvent] = []
    ledger = Ledger(events.append)
    a, b, c, d = (ledger.issue(name) for name in "abcd")
    ledger.buffered(a)
    ledger.trained(a, policy_version=1)
    ledger.buffered(b)
    ledger.dropped(c, "too short")
    ledger.failed(d, "EngineError")
    counts = ledger.counts()
    assert (counts.issued, counts.trained, counts.dropped, counts.failed) == (4, 1, 1, 1)
    assert (counts.in_flight, counts.buffered) == (0, 1)
    assert ledger.reasons == {"too short": 1, "EngineError": 1}
    assert [event.fate for event in events if event.lease_id == a] == [
        LeaseStatus.IN_FLIGHT,
        LeaseStatus.BUFFERED,
        LeaseStatus.TRAINED,
    ]
    ledger.check(in_flight=0, buffered=1)


def test_a_problem_is_never_trained_twice() -> None:
    ledger = Ledger(lambda event: None)
    lease = ledger.issue("a")
    ledger.buffered(lease)
    ledger.trained(lease, 1)
    with pytest.raises(LedgerError, match="is trained and cannot become trained"):
        ledger.trained(lease, 2)


def test_a_group_the_controller_lost_stops_the_run() -> None:
    ledger = Ledger(lambda event: None)
    ledger.issue("a")
    with pytest.raises(LedgerError, match="does not balance.*0 in flight"):
        ledger.check(in_flight=0, buffered=0)
    ledger.buffered(0)
    with pytest.raises(LedgerError, match="does not balance.*0 buffered"):
        ledger.check(in_flight=0, buffered=0)
    ledger.check(in_flight=0, buffered=1)


MAY_FOLLOW = {
    LeaseStatus.IN_FLIGHT: {"buffered", "dropped", "failed"},
    LeaseStatus.BUFFERED: {"trained", "dropped"},
    LeaseStatus.TRAINED: set[str](),
    LeaseStatus.DROPPED: set[str](),
    LeaseStatus.FAILED: set[str](),
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {"buffered": (), "trained": (1,), "dropped": ("short",), "failed": ("crash",)}


@pytest.mark.parametrize("move", ARGUMENTS)
@pytest.mark.parametrize("status", LeaseStatus)
def test_a_fate_follows_from_those_before_it_alone(status: LeaseStatus, move: str) -> None:
    """A group that was never buffered was never in a batch; what is final stays."""
    ledger = Ledger(lambda event: None)
    lease = ledger.issue("a")
    if status in (LeaseStatus.BUFFERED, LeaseStatus.TRAINED):
        ledger.buffered(lease)
    if status not in (LeaseStatus.IN_FLIGHT, LeaseStatus.BUFFERED):
        getattr(ledger, status)(lease, *ARGUMENTS[status])
    if move in MAY_FOLLOW[status]:
        getattr(ledger, move)(lease, *ARGUMENTS[move])
        assert ledger.with_status(LeaseStatus(move)) == [lease]
    else:
        with pytest.raises(LedgerError, match=f"is {status} and cannot become {move}"):
            getattr(ledger, move)(lease, *ARGUMENTS[move])
        assert ledger.with_status(status) == [lease]


@given(st.lists(st.sampled_from(["issue", "buffer", "train", "drop", "fail"]), max_size=60), st.randoms())
def test_identity_holds_over_any_history(actions: list[str], random: object) -> None:
    ledger = Ledger(lambda event: None)
    in_flight: list[int] = []
    buffered: list[int] = []
    for action in actions:
        if action == "issue":
            in_flight.append(ledger.issue("p"))
        elif action == "buffer" and in_flight:
            buffered.append(in_flight.pop())
            ledger.buffered(buffered[-1])
        elif action == "train" and buffered:
            ledger.trained(buffered.pop(0), 1)
        elif action == "drop" and in_flight:
            ledger.dropped(in_flight.pop(0), "x")
        elif action == "fail" and in_flight:
            ledger.failed(in_flight.pop(), "y")
        ledger.check(in_flight=len(in_flight), buffered=len(buffered))
        ledger.audit()
    again, replayed = Ledger(lambda event: None), Ledger(lambda event: None)
    again.load(ledger_from_table(ledger_to_table(ledger.snapshot())))
    for event in ledger.snapshot().events():
        replayed.restore(event)
    for other in (again, replayed):
        other.audit()
        assert other.counts() == ledger.counts()
        assert other.reasons == ledger.reasons
        assert list(other.snapshot().events()) == list(ledger.snapshot().events())
        assert other.issue("next") == ledger.next_lease_id


def test_books_are_a_copy() -> None:
    ledger = Ledger(lambda event: None)
    lease = ledger.issue("a")
    books = ledger.snapshot()
    ledger.buffered(lease)
    assert [event.fate for event in books.events()] == [LeaseStatus.IN_FLIGHT]
