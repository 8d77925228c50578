"""Every row once, within the budget, prompts shared."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.packing import TrainRow, pack, padded_cost, shared_cost

groups_of_lengths = st.lists(
    st.tuples(st.integers(1, 12), st.lists(st.integers(1, 30), min_size=0, max_size=6)), min_size=0, max_size=6
)


def rows(prompt_length: int, lengths: list[int]) -> list[TrainRow]:
    prompt_P = np.zeros(prompt_length, np.int32)
    return [
        TrainRow(prompt_P, np.zeros(n, np.int32), np.zeros(n, np.float32), np.ones(n, np.bool_), 1.0, 1.0, 0)
        for n in lengths
    ]


def test_group_that_fits_runs_its_prompt_once() -> None:
    (batch,) = pack([rows(10, [5, 5, 5])], budget_tokens=22, share_prompts=True)
    assert len(batch.prompts) == 1
    assert shared_cost(batch.rows) == 10 + 3 * 4


def test_group_above_the_budget_is_split_and_pays_its_prompt_again() -> None:
    batches = pack([rows(10, [5, 5, 5])], budget_tokens=18, share_prompts=True)
    assert [len(batch.rows) for batch in batches] == [2, 1]
    assert all(len(batch.prompts) == 1 for batch in batches)


def test_without_sharing_rows_are_padded_to_the_longest() -> None:
    batches = pack([rows(10, [5, 3]), rows(2, [3])], budget_tokens=28, share_prompts=False)
    assert [padded_cost(batch.rows) for batch in batches] == [28, 4]


def test_longest_come_first() -> None:
    batches = pack([rows(2, [3]), rows(2, [30]), rows(2, [9])], budget_tokens=10, share_prompts=True)
    assert [batch.rows[0].num_inputs for batch in batches] == [29, 8, 2]


@pytest.mark.parametrize("share", [True, False])
@given(given=groups_of_lengths, budget=st.integers(1, 80))
def test_every_row_is_in_exactly_one_micro_batch_within_budget(
    share: bool, given: list[tuple[int, list[int]]], budget: int
) -> None:
    groups = [rows(prompt, lengths) for prompt, lengths in given]
    batches = pack(groups, budget, share)
    packed = Counter(id(row) for batch in batches for row in batch.rows)
    assert packed == Counter(id(row) for members in groups for row in members)
    for batch in batches:
        cost = shared_cost(batch.rows) if share else padded_cost(batch.rows)
        assert cost <= budget or len(batch.rows) == 1
        for row, prompt in zip(batch.rows, batch.prompt_of_R, strict=True):
            assert batch.prompts[prompt] is row.prompt_P
