"""How samples are cut into batches, and how many rows go on when some have ended."""

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.torch_decoding.decode_batches import ROW_STEP, Slice, plan_batches, rows_after_compaction


def test_groups_fill_batches_in_order_of_prompt_length() -> None:
    batches = plan_batches(prompt_lengths=[30, 10, 20], num_samples=[2, 3, 4], max_rows=5)
    assert batches == [[Slice(1, 0, 3), Slice(2, 0, 2)], [Slice(2, 2, 2), Slice(0, 0, 2)]]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 40)), max_size=12), st.integers(1, 20))
def test_every_sample_is_in_one_batch_in_order_and_no_batch_is_too_big(
    requests: list[tuple[int, int]], max_rows: int
) -> None:
    batches = plan_batches([length for length, _ in requests], [count for _, count in requests], max_rows)
    seen: dict[int, list[int]] = {}
    for batch in batches:
        assert 0 < sum(piece.count for piece in batch) <= max_rows
        for piece in batch:
            seen.setdefault(piece.request, []).extend(range(piece.first, piece.first + piece.count))
    assert seen == {index: list(range(count)) for index, (_, count) in enumerate(requests) if count}


def test_rows_shrink_in_whole_steps_and_never_grow() -> None:
    assert [rows_after_compaction(live, 64) for live in (64, 57, 56, 9, 1)] == [64, 64, 56, 16, ROW_STEP]
    assert rows_after_compaction(1, 3) == 3
