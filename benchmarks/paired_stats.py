"""Paired comparisons: how far an arm is from the control, by how much that is known, and what may be said of it. Pure.

Runs of one seed share their start, their problems and their sampling seeds, so what is compared is the difference per
seed. The interval is Student's t at 95 % with n - 1 degrees of freedom; it takes seeds as draws from all seeds.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import t as student

CONFIDENCE = 0.95
MARGIN = 0.03
"""Of accuracy: an arm whose lower bound is above -MARGIN costs nothing that matters."""
WANTED_HALF_WIDTH = 0.05


class Verdict(StrEnum):
    """What the interval allows to say; the first that holds, from the strongest."""

    BETTER = "better"
    NON_INFERIOR = "non-inferior"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences arm - control in accuracy (shares of 1) over n seeds. half_width: infinite for one seed, 0 only where
    all differences are equal. std: of the differences, n - 1 in the denominator."""

    n: int
    mean: float
    std: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    @property
    def verdict(self) -> Verdict:
        if self.low > 0:
            return Verdict.BETTER
        return Verdict.NON_INFERIOR if self.low > -MARGIN else Verdict.UNDECIDED

    @property
    def seeds_missing(self) -> int:
        """More seeds until the half-width is WANTED_HALF_WIDTH, if the standard deviation stays as it is."""
        if self.n < 2:
            return 2 - self.n
        return seeds_needed(self.std, WANTED_HALF_WIDTH) - self.n if self.half_width > WANTED_HALF_WIDTH else 0


def paired(arm: Mapping[int, float], control: Mapping[int, float]) -> Paired:
    """Values by seed; the seeds that both have are compared. Raises ValueError where they share none."""
    seeds = sorted(arm.keys() & control.keys())
    if not seeds:
        raise ValueError(f"no seed in common: the arm has {sorted(arm)}, the control {sorted(control)}")
    return of_differences([arm[seed] - control[seed] for seed in seeds])


def of_differences(differences: Sequence[float]) -> Paired:
    """Raises ValueError for none."""
    n = len(differences)
    mean = math.fsum(differences) / n if n else math.nan
    if n < 2:
        if not n:
            raise ValueError("no differences to compare")
        return Paired(1, mean, math.nan, math.inf)
    std = statistics.stdev(differences)
    return Paired(n, mean, std, _half_width(std, n))


def seeds_needed(std: float, half_width: float, limit: int = 10_000) -> int:
    """The least n >= 2 whose interval is at most this wide on either side; `limit` where none below it is."""
    low, high = 2, limit
    while low < high:  # the half-width falls with n
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(std, middle) <= half_width else (middle + 1, high)
    return low


def _half_width(std: float, n: int) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
