"""One suite over both VectorIndex implementations, and FAISS against numpy."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.errors import MemoryServiceError
from contracts.ports import VectorIndex
from memory_service.faiss_index import FaissFlatIndex
from memory_service.numpy_index import NumpyIndex

IMPLEMENTATIONS: list[Callable[[int], VectorIndex]] = [FaissFlatIndex, NumpyIndex]
AXES = np.eye(3, dtype=np.float32)


def unit(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def ids(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
class TestVectorIndex:
    def test_best_first_with_stable_ids(self, make: Callable[[int], VectorIndex]) -> None:
        index = make(3)
        index.add(ids(70, 5), AXES[:2])
        found, cosines = index.search(np.array([[0.6, 0.8, 0.0]], np.float32), 2)
        assert found.tolist() == [[5, 70]]
        assert cosines == pytest.approx(np.array([[0.8, 0.6]]))

    def test_empty_index_answers_minus_one_and_zero_never_a_sentinel(self, make: Callable[[int], VectorIndex]) -> None:
        found, cosines = make(3).search(AXES[:1], 2)
        assert found.tolist() == [[-1, -1]]
        assert cosines.tolist() == [[0.0, 0.0]]

    def test_k_above_the_stored_count_is_filled_with_minus_one(self, make: Callable[[int], VectorIndex]) -> None:
        index = make(3)
        index.add(ids(4), AXES[:1])
        found, cosines = index.search(AXES[:1], 3)
        assert found.tolist() == [[4, -1, -1]]
        assert cosines.tolist() == [[1.0, 0.0, 0.0]]

    def test_equal_cosines_go_by_lower_id(self, make: Callable[[int], VectorIndex]) -> None:
        index = make(3)
        index.add(ids(9, 2, 6), np.repeat(AXES[:1], 3, axis=0))
        assert index.search(AXES[:1], 2)[0].tolist() == [[2, 6]]

    def test_removed_ids_are_never_found(self, make: Callable[[int], VectorIndex]) -> None:
        index = make(3)
        index.add(ids(0, 1, 2), AXES)
        index.remove(ids(1))
        assert len(index) == 2
        assert index.search(AXES[1:2], 3)[0].tolist() == [[0, 2, -1]]

    @pytest.mark.parametrize("bad", [[np.nan, 0, 0], [0, 0, 0], [np.inf, 0, 0], [2, 0, 0], [1, 0]])
    def test_poison_is_refused_on_the_way_in_and_on_search(
        self, make: Callable[[int], VectorIndex], bad: list[float]
    ) -> None:
        index = make(3)
        vectors = np.array([bad], np.float32)
        with pytest.raises(MemoryServiceError, match="add"):
            index.add(ids(0), vectors)
        with pytest.raises(MemoryServiceError, match="search"):
            index.search(vectors, 1)
        assert len(index) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10_000))
def test_faiss_equals_numpy(count: int, k: int, seed: int) -> None:
    stored, queries = unit(count, 8, seed), unit(3, 8, seed + 1)
    removed = np.arange(0, count, 3, dtype=np.int64)
    answers = []
    for make in IMPLEMENTATIONS:
        index = make(8)
        index.add(np.arange(count, dtype=np.int64), stored)
        index.remove(removed)
        answers.append(index.search(queries, k))
    assert np.array_equal(answers[0][0], answers[1][0])
    assert np.allclose(answers[0][1], answers[1][1], atol=1e-6)
