"""Advantages against the papers' formulas, written out one rollout at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import ESTIMATORS, dr_grpo, grpo, rloo

rewards = st.lists(st.floats(-3, 3, allow_nan=False), min_size=2, max_size=9)


def slow_grpo(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return [(v - mean) / (math.sqrt(variance) + 1e-4) for v in values]


def slow_leave_one_out(values: list[float]) -> list[float]:
    return [v - sum(values[:k] + values[k + 1 :]) / (len(values) - 1) for k, v in enumerate(values)]


def test_grpo_of_one_right_answer_in_four() -> None:
    np.testing.assert_allclose(grpo(np.array([1.0, 0, 0, 0])), [1.5 - 3e-4] + [-0.5 + 1e-4] * 3, atol=1e-6)


def test_leave_one_out_of_one_right_answer_in_three() -> None:
    np.testing.assert_allclose(rloo(np.array([1.0, 0, 0])), [1.0, -0.5, -0.5])


@given(rewards)
def test_grpo_equals_its_formula(values: list[float]) -> None:
    expected = slow_grpo(values) if len(set(values)) > 1 else [0.0] * len(values)
    np.testing.assert_allclose(grpo(np.array(values)), expected, atol=1e-9)


@given(rewards)
def test_both_forms_of_leave_one_out_agree(values: list[float]) -> None:
    """LOOP: R_k - sum of the others / (K - 1) = K / (K - 1) (R_k - mean)."""
    factor = len(values) / (len(values) - 1)
    np.testing.assert_allclose(rloo(np.array(values)), slow_leave_one_out(values), atol=1e-9)
    np.testing.assert_allclose(rloo(np.array(values)), factor * dr_grpo(np.array(values)), atol=1e-9)


def test_leave_one_out_over_std_is_grpo_up_to_its_factor() -> None:
    values = np.array([0.1, 0.9, 0.4, 0.4, 0.0])
    np.testing.assert_allclose(rloo(values) / (values.std(ddof=1) + 1e-4), grpo(values) * 5 / 4, atol=1e-12)


def test_loop_and_rloo_are_one_form() -> None:
    assert ESTIMATORS["loop"] is ESTIMATORS["rloo"]


@pytest.mark.parametrize("name", list(ESTIMATORS))
@pytest.mark.parametrize("values", [[], [0.7], [0.1] * 3, [0.3] * 7])
def test_nothing_to_compare_gives_exact_zeros(name: str, values: list[float]) -> None:
    assert not ESTIMATORS[name](np.array(values, np.float64)).any()  # type: ignore[index]
