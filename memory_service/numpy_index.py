"""The slow, obvious index: one matrix product per search. Oracle of faiss_index, and enough for small memories."""

import numpy as np
from numpy.typing import NDArray

from memory_service.ranking import rank_candidates
from memory_service.vectors import check_unit_vectors


class NumpyIndex:
    """Implements contracts.ports.VectorIndex."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._ids_N = np.empty(0, np.int64)
        self._vectors_ND = np.empty((0, dimension), np.float32)

    def __len__(self) -> int:
        return len(self._ids_N)

    def add(self, ids_N: NDArray[np.int64], vectors_ND: NDArray[np.float32]) -> None:
        checked = check_unit_vectors(vectors_ND, self._dimension, "add")
        self._ids_N = np.concatenate([self._ids_N, ids_N])
        self._vectors_ND = np.concatenate([self._vectors_ND, checked])

    def remove(self, ids_N: NDArray[np.int64]) -> None:
        keep_N = ~np.isin(self._ids_N, ids_N)
        self._ids_N, self._vectors_ND = self._ids_N[keep_N], self._vectors_ND[keep_N]

    def search(self, queries_QD: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        checked = check_unit_vectors(queries_QD, self._dimension, "search")
        candidates_QN = np.broadcast_to(self._ids_N, (len(checked), len(self)))
        return rank_candidates(candidates_QN, checked @ self._vectors_ND.T, k)
