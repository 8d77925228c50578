"""The judgement over probes, on numbers that can be checked by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.proof import EXACT, Proven, Tolerance, difference, judge, tolerance_for
from contracts.adapter import Probe

TOKENS = np.arange(5, dtype=np.int32)
BASE = np.array([0, -1, -2, -3, -4], np.float32)
ROUNDED = tolerance_for("bfloat16", "bfloat16")


def array(*values: float) -> NDArray[np.float32]:
    return np.array([0, *values], np.float32)


def probe(logprobs: NDArray[np.float32]) -> Probe:
    return Probe(TOKENS, logprobs, BASE)


def moved(by: float) -> NDArray[np.float32]:
    """The base, moved by the same amount up and down in turns."""
    return BASE + array(by, -by, by, -by)


def test_the_first_token_has_no_log_prob_and_does_not_count() -> None:
    found = difference([probe(moved(0.5))], [moved(0.5) + np.array([9, 0, 0, 0, 0.4], np.float32)])
    assert found.mean == pytest.approx(0.1)
    assert found.max == pytest.approx(0.4)


@pytest.mark.parametrize(("by", "served"), [(0.0, True), (0.0009, True), (0.0012, False)])
def test_in_float32_a_thousandth_is_the_limit(by: float, served: bool) -> None:
    assert (judge([probe(moved(0.5))], [moved(0.5 + by)], EXACT, {}) is None) is served


def test_a_single_large_difference_is_refused_though_the_mean_is_small() -> None:
    engine = moved(0.5) + array(0, 0, 0, 0.2)
    assert judge([probe(moved(0.5))], [engine], Tolerance(0.1, 0.15), {}) is not None


def test_data_types_decide_the_tolerance_and_a_setting_replaces_it() -> None:
    assert tolerance_for("float32", "float32") == EXACT
    assert tolerance_for("float32", "bfloat16") == tolerance_for("bfloat16", "float32") == ROUNDED
    assert tolerance_for("float32", "float32", mean=0.2) == Tolerance(0.2, 3.0)


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        (moved(0.02), "no effect"),
        (moved(1.0), "more than once"),
        (moved(0.5) + array(0.3, 0.3, 0.3, 0.3), "weights or data type"),
        (moved(float("nan")), "not numbers"),
    ],
)
def test_the_cause_is_told_from_the_numbers(engine: NDArray[np.float32], cause: str) -> None:
    found = judge([probe(moved(0.5))], [engine], ROUNDED, {})
    assert found is not None
    assert cause in found


def test_a_stale_version_is_seen_where_rounding_is_larger_than_the_step() -> None:
    """Version 2 is 0.02 from version 1, the engine's rounding 0.03: no tolerance could tell them apart."""
    rounding = array(0.03, 0.03, 0.03, 0.03)
    earlier = {1: Proven((probe(moved(0.5)),), (moved(0.5) + rounding,))}
    stale, fresh = moved(0.5) + rounding, moved(0.52) + rounding
    refused = judge([probe(moved(0.52))], [stale], ROUNDED, earlier)
    assert refused is not None
    assert "version 1" in refused
    assert judge([probe(moved(0.52))], [fresh], ROUNDED, earlier) is None


def test_a_version_that_moved_nothing_is_not_taken_for_its_predecessor() -> None:
    earlier = {1: Proven((probe(moved(0.5)),), (moved(0.53),))}
    assert judge([probe(moved(0.5))], [moved(0.53)], ROUNDED, earlier) is None


def test_without_probes_there_is_nothing_to_prove() -> None:
    assert judge([], [], EXACT, {}) is None
