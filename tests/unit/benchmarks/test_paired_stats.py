"""Paired intervals on numbers that can be counted by hand, and against a t distribution that is integrated slowly."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.paired_stats import MARGIN, Paired, Verdict, of_differences, paired, seeds_needed

differences = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3)), min_size=2, max_size=12)


def slow_t_quantile(probability: float, freedom: int) -> float:
    """By bisection over Simpson's rule on the density."""
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)

    def density(x: float) -> float:
        return math.exp(log_scale - (freedom + 1) / 2 * math.log1p(x * x / freedom))

    def below(x: float) -> float:
        n = 4000
        h = x / n
        odd, even = (
            sum(density((2 * i + 1) * h) for i in range(n // 2)),
            sum(density(2 * i * h) for i in range(1, n // 2)),
        )
        return 0.5 + h / 3 * (density(0) + 4 * odd + 2 * even + density(x))

    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return low


def test_four_seeds_by_hand() -> None:
    """Differences 0, 2, 4, 6 points: mean 3, std sqrt(20/3) = 2.582, t(3) = 3.182, half-width 3.182 x 2.582 / 2."""
    found = of_differences([0.00, 0.02, 0.04, 0.06])
    assert found.mean == pytest.approx(0.03)
    assert found.half_width == pytest.approx(0.0410852, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.0110852, 0.0710852), abs=1e-6)
    assert found.verdict is Verdict.NON_INFERIOR


def test_only_seeds_that_both_have_are_compared_each_with_its_own() -> None:
    found = paired({0: 0.5, 1: 0.9, 7: 0.1}, {1: 0.7, 0: 0.4, 2: 0.0})
    assert found.n == 2
    assert found.mean == pytest.approx(0.15)


def test_pairing_takes_out_what_seeds_share() -> None:
    """Seeds that differ by 60 points and an arm that is always 1 point better: known to the last digit."""
    found = paired({0: 0.21, 1: 0.51, 2: 0.81}, {0: 0.2, 1: 0.5, 2: 0.8})
    assert found.half_width < 1e-9
    assert found.verdict is Verdict.BETTER


@pytest.mark.parametrize(
    ("mean", "half_width", "verdict"),
    [
        (0.05, 0.049, Verdict.BETTER),
        (0.05, 0.05, Verdict.NON_INFERIOR),
        (0.00, 0.029, Verdict.NON_INFERIOR),
        (0.00, MARGIN, Verdict.UNDECIDED),
        (-0.10, 0.01, Verdict.UNDECIDED),
        (0.20, math.inf, Verdict.UNDECIDED),
    ],
)
def test_verdict_goes_by_the_lower_bound(mean: float, half_width: float, verdict: Verdict) -> None:
    assert Paired(4, mean, 0.1, half_width).verdict is verdict


def test_one_seed_says_nothing_and_none_is_refused() -> None:
    assert of_differences([0.4]).verdict is Verdict.UNDECIDED
    assert of_differences([0.4]).seeds_missing == 1
    with pytest.raises(ValueError, match="no seed in common: the arm has \\[3\\], the control \\[0, 1\\]"):
        paired({3: 0.1}, {0: 0.1, 1: 0.1})


def test_seeds_needed_for_five_points() -> None:
    """std 7 points: n = 10 gives 2.262 x 7 / sqrt(10) = 5.007, n = 11 gives 2.228 x 7 / sqrt(11) = 4.703."""
    assert seeds_needed(0.07, 0.05) == 11
    found = of_differences([0.07, -0.07] * 2)  # std 8.08 points, half-width 12.9: wants 13 of which 4 are there
    assert found.seeds_missing == 9
    assert of_differences([0.01, 0.02, 0.01, 0.02]).seeds_missing == 0


@settings(max_examples=20, deadline=None)
@given(differences)
def test_interval_equals_its_definition_computed_slowly(values: list[float]) -> None:
    n = len(values)
    expected = slow_t_quantile(0.975, n - 1) * statistics.pstdev(values) * math.sqrt(n / (n - 1)) / math.sqrt(n)
    assert of_differences(values).half_width == pytest.approx(expected, rel=1e-5, abs=1e-9)


@given(st.floats(0.001, 0.5), st.floats(0.01, 0.3))
def test_one_seed_fewer_than_needed_is_too_few(std: float, half_width: float) -> None:
    def wide(n: int) -> float:
        from scipy.stats import t

        return float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)

    n = seeds_needed(std, half_width)
    assert wide(n) <= half_width
    assert n == 2 or wide(n - 1) > half_width
