"""What every index refuses: vectors that would poison a search."""

import numpy as np
from numpy.typing import NDArray

from contracts.errors import MemoryServiceError

_UNIT_TOLERANCE = 1e-2


def check_unit_vectors(vectors_ND: NDArray[np.float32], dimension: int, what: str) -> NDArray[np.float32]:
    """The vectors as contiguous float32. Raises MemoryServiceError, naming the row, unless all are finite unit vectors."""
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] != dimension:
        raise MemoryServiceError(f"{what}: vectors have shape {vectors_ND.shape}, the index holds rows of {dimension}")
    with np.errstate(invalid="ignore"):  # a signalling NaN, which is refused below
        norms_N = np.linalg.norm(vectors_ND.astype(np.float64), axis=1)
    bad_N = ~(np.abs(norms_N - 1.0) < _UNIT_TOLERANCE)  # NaN compares false, so it is bad
    if bad_N.any():
        row = int(np.flatnonzero(bad_N)[0])
        raise MemoryServiceError(
            f"{what}: vector {row} has length {norms_N[row]:g} instead of 1; check memory.encoder and memory.encoder_dtype"
        )
    return np.ascontiguousarray(vectors_ND, np.float32)
