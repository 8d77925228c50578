"""The buffer gives the oldest first and never lets a publication break the lag bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.flow.rollout_buffer import RolloutBuffer, publication_waits_for
from tests.fakes import make_group, make_scored


@pytest.mark.parametrize(
    ("version", "max_lag", "size", "outside", "expected"),
    [
        (0, 0, 1, [], None),
        (0, 0, 1, [0], 0),  # publishing 1 would leave the group of version 0 with lag 1
        (5, 2, 1, [4], None),  # lag 6 - 4 = 2
        (5, 2, 1, [3], 3),  # lag 6 - 3 = 3
        (5, 2, 1, [6, 3], 3),
        (5, 2, 2, [4, 4], None),  # both in the next batch
        (5, 2, 2, [4, 4, 4], 4),  # the third in the one after it: lag 7 - 4 = 3
        (5, 2, 2, [4, 5, 5], None),
        (250, 2, 4, [249] * 8, 249),  # two batches of version 249, and room for one
    ],
)
def test_publication_waits_for_a_group_it_would_make_stale(
    version: int, max_lag: int, size: int, outside: list[int], expected: int | None
) -> None:
    assert publication_waits_for(version, max_lag, size, outside) == expected


def test_oldest_version_goes_first_and_a_short_buffer_waits() -> None:
    buffer = RolloutBuffer(groups_per_batch=2, max_policy_lag=2, max_bytes=10**6)
    buffer.put(make_scored(make_group(5, version=1)))
    assert buffer.take(1, []) is None
    buffer.put(make_scored(make_group(9, version=0)))
    buffer.put(make_scored(make_group(3, version=1)))
    batch = buffer.take(1, [])
    assert batch is not None
    assert [scored.group.lease_id for scored in batch] == [9, 3]
    assert len(buffer) == 1


def test_a_batch_stays_in_the_buffer_until_it_is_booked() -> None:
    """What stops the run during the update finds it there; to admission and slots it is gone, as its bytes are."""
    buffer = RolloutBuffer(groups_per_batch=2, max_policy_lag=0, max_bytes=1)
    for lease in range(2):
        buffer.put(make_scored(make_group(lease)))
    assert buffer.take(0, []) is not None
    assert (len(buffer), buffer.state.nbytes, buffer.full) == (0, 0, False)
    assert buffer.drop_stale(5) == []
    assert [scored.group.lease_id for scored in buffer.groups] == [0, 1]
    buffer.trained()
    assert buffer.groups == []


def test_full_buffer_never_starves_the_learner() -> None:
    buffer = RolloutBuffer(groups_per_batch=2, max_policy_lag=0, max_bytes=1)
    buffer.put(make_scored(make_group(0)))
    fullness = [buffer.full]
    buffer.put(make_scored(make_group(1)))
    fullness.append(buffer.full)
    assert fullness == [False, True], "one group of two: admission goes on although the bytes are over the bound"
    assert buffer.take(0, []) is not None
    assert buffer.state.nbytes == 0


@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.sampled_from(["start", "finish", "train"]), st.integers(0, 10**6)), max_size=120),
)
def test_no_history_trains_beyond_the_bound_drops_anything_or_gets_stuck(
    max_lag: int, actions: list[tuple[str, int]]
) -> None:
    """Workers start groups at the current version within the slots, finish them in any order."""
    size = 2
    buffer = RolloutBuffer(size, max_lag, 10**9)
    version, next_id = 0, 0
    under_way: dict[int, int] = {}

    def train() -> bool:
        nonlocal version
        assert buffer.drop_stale(version) == []
        batch = buffer.take(version, list(under_way.values()))
        if batch is None:
            return False
        assert all(version - scored.group.policy_version <= max_lag for scored in batch)
        version += 1
        buffer.trained()
        return True

    for action, choice in actions:
        if action == "start" and len(under_way) + len(buffer) < (max_lag + 1) * size:
            under_way[next_id] = version
            next_id += 1
        elif action == "finish" and under_way:
            lease = sorted(under_way)[choice % len(under_way)]
            buffer.put(make_scored(make_group(lease, version=under_way.pop(lease))))
        elif action == "train":
            train()
    for lease, sampled_by in under_way.items():
        buffer.put(make_scored(make_group(lease, version=sampled_by)))
    under_way.clear()
    while len(buffer) >= size:
        assert train(), "with nothing under way a whole batch is always taken"


def test_what_grew_too_old_all_the_same_is_dropped_and_does_not_block_the_rest() -> None:
    """As after a worker that sampled with an older version than the newest."""
    buffer = RolloutBuffer(groups_per_batch=4, max_policy_lag=2, max_bytes=10**9)
    for lease in range(12):
        buffer.put(make_scored(make_group(lease, version=249 if lease < 8 else 251)))
    assert buffer.drop_stale(251) == []
    batch = buffer.take(251, [])
    assert batch is not None
    assert [scored.group.lease_id for scored in batch] == [0, 1, 2, 3]
    buffer.trained()
    assert [scored.group.lease_id for scored in buffer.drop_stale(252)] == [4, 5, 6, 7]
    assert buffer.take(252, []) is not None
