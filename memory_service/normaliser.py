"""Min-max over a sliding window of the last w raw values (docs/algorithms.md, section 1, row normalise)."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SlidingMinMax:
    """(r - min) / (max - min + eps), clipped to [0, 1]. range_floor: a window whose range is below it gives 0.5."""

    def __init__(self, window: int, eps: float, range_floor: float) -> None:
        self._values: deque[float] = deque(maxlen=window)
        self._eps = eps
        self._range_floor = range_floor

    @property
    def values(self) -> list[float]:
        """The window, oldest first; `restore` takes it back."""
        return list(self._values)

    def restore(self, values: Sequence[float]) -> None:
        self._values.clear()
        self._values.extend(values)

    def push(self, raw_N: NDArray[np.float64]) -> None:
        self._values.extend(float(value) for value in raw_N)

    def scale(self, raw_N: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Against the window as it is; None where the window has no range and no eps (0 / 0: the caller decides)."""
        if len(raw_N) == 0:
            return raw_N
        low, high = min(self._values), max(self._values)
        if self._range_floor > 0 and high - low < self._range_floor:
            return np.full(len(raw_N), 0.5)
        if high == low and self._eps == 0:
            return None
        scaled: NDArray[np.float64] = np.clip((raw_N - low) / (high - low + self._eps), 0.0, 1.0)
        return scaled
