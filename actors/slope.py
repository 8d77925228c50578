"""The slope of one movement on another, with a confidence interval that allows for noise of every size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STANDARD_ERRORS = 4.0
"""Half the width of that confidence interval."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Least squares through the origin, with the half width of its confidence interval."""

    value: float
    half_width: float

    @property
    def lowest(self) -> float:
        return self.value - self.half_width

    @property
    def highest(self) -> float:
        return self.value + self.half_width


def slope_of(engine_N: Floats, learner_N: Floats) -> Slope:
    """Of the engine's movement on the learner's. Standard errors allow for noise that differs from token to token (White 1980,
    HC0). Without any movement the interval is unbounded."""
    size = float(learner_N @ learner_N)
    if size == 0:
        return Slope(1.0, np.inf)
    value = float(engine_N @ learner_N) / size
    error = float(np.linalg.norm(learner_N * (engine_N - value * learner_N))) / size
    return Slope(value, STANDARD_ERRORS * error)
