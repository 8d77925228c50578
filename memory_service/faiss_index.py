"""Exact search with FAISS: a flat inner-product index under stable ids. The only file that imports faiss.

FAISS answers id -1 and a huge distance where it has fewer than k vectors, accepts NaN, and breaks ties as it
likes: vectors are checked on the way in, -1 is decoded before any distance is read, and a few candidates more than
k are ranked by us. One owner thread calls this; FAISS crashed when an add met a search.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

from memory_service.ranking import rank_candidates
from memory_service.vectors import check_unit_vectors

_SPARE = 8
"""Candidates beyond k, so that equal cosines at the edge are settled by id and not by FAISS."""


class FaissFlatIndex:
    """Implements contracts.ports.VectorIndex."""

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids_N: NDArray[np.int64], vectors_ND: NDArray[np.float32]) -> None:
        self._index.add_with_ids(check_unit_vectors(vectors_ND, self._dimension, "add"), np.asarray(ids_N, np.int64))

    def remove(self, ids_N: NDArray[np.int64]) -> None:
        self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(ids_N, np.int64)))

    def search(self, queries_QD: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        checked = check_unit_vectors(queries_QD, self._dimension, "search")
        wanted = min(len(self), k + _SPARE)
        if wanted == 0:
            return rank_candidates(np.empty((len(checked), 0), np.int64), np.empty((len(checked), 0), np.float32), k)
        cosines_QC, ids_QC = self._index.search(checked, wanted)
        return rank_candidates(ids_QC, cosines_QC, k)
