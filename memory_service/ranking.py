"""Best first, ties by lower id, -1 where there are fewer than k: the same order from every index."""

import numpy as np
from numpy.typing import NDArray

_COSINE_GRAIN = 1e-6
"""Cosines closer than this are equal: float32 sums differ in the last bits between libraries."""


def rank_candidates(
    ids_QC: NDArray[np.int64], cosines_QC: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of each row's candidates (id -1: none): ids_QK and cosines_QK, 0 beside -1."""
    ids_QK = np.full((len(ids_QC), k), -1, np.int64)
    cosines_QK = np.zeros((len(ids_QC), k), np.float32)
    for q in range(len(ids_QC)):
        real_C = ids_QC[q] >= 0
        ids_C, cosines_C = ids_QC[q][real_C], cosines_QC[q][real_C]
        order = np.lexsort((ids_C, -np.round(cosines_C / _COSINE_GRAIN)))[:k]
        ids_QK[q, : len(order)] = ids_C[order]
        cosines_QK[q, : len(order)] = np.clip(cosines_C[order], -1.0, 1.0)
    return ids_QK, cosines_QK
