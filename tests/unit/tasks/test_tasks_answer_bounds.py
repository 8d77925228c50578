"""What is costly to compute is refused on its text; what is ordinary is not."""

import threading
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import typed_json
from tasks.answer_bounds import claims_something_else, is_affordable
from tasks.arithmetic_value import arithmetic_value
from tasks.cpu_limit import OutOfTimeError, cpu_limit
from tasks.math_check import is_equal


@pytest.mark.parametrize(
    "answer",
    [
        "(" * 50 + "1" + ")" * 50,
        "{" * 50 + "1" + "}" * 50,
        "9^{9^9}",
        "9^{9^{9^9}}",
        "9^9^9",
        "9**9**9",
        "9^{9}^{9}",
        "10^{100000}",
        "(10^{999})^{999}",
        "2^{(3)^{4}}",
        "1000000!",
        "(5!)!",
        r"\binom{99999}{50000}",
        r"\sum_{k=1}^{1000} k",
        r"\int_0^1 x dx",
        r"\lim_{x \to 0} x",
        "1" * 60,
        "1+" * 100 + "1",
        "x" * 500,
        "a_{b_{c_{d}}}",
    ],
)
def test_what_is_cheap_to_write_and_costly_to_compute_is_not_parsed(answer: str) -> None:
    assert not is_affordable(answer, r"\frac{\pi}{2}")
    assert is_equal(answer, r"\frac{\pi}{2}") is False


@pytest.mark.parametrize(
    "answer",
    [
        r"\frac{1}{2006!}",
        r"\frac{2}{2^{99}}",
        "x^{2023} + 1",
        r"10^{\frac{-5+\sqrt{13}}{6}}",
        "e^{x^2}",
        "(x+1)^2",
        "n!",
    ],
)
def test_ordinary_mathematics_is_parsed(answer: str) -> None:
    assert is_affordable(answer, "x + 1")


def test_what_the_reference_has_the_answer_may_have() -> None:
    reference = r"\sum_{k=0}^{n-1} F_k"
    assert is_affordable(reference, reference)
    assert not claims_something_else(r"f: x \mapsto 2x", r"f: x \mapsto x")
    assert claims_something_else(r"43 \to 42", "x + 1")


def test_a_reference_that_is_too_large_to_compute_is_an_error_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match=r"too large to compute with.*task\.scorer"):
        is_equal("x", "x + 9^{9^{9^9}}")


def test_processor_time_is_limited_in_the_main_thread_and_left_alone_elsewhere() -> None:
    with pytest.raises(OutOfTimeError), cpu_limit(0.02):
        for _ in iter(int, 1):
            pass
    done: list[bool] = []

    def elsewhere() -> None:
        with cpu_limit(0.001):
            done.append(sum(range(10**5)) > 0)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(timeout=60)
    assert done == [True]


@pytest.mark.parametrize(
    ("expression", "value"),
    [("7 + 12", 19), ("(7 + 12) * 2", 38), ("84 / 2", 42), ("-3 + 1", -2), ("2 ** 10", 1024), ("1/3", Fraction(1, 3))],
)
def test_plain_arithmetic_has_an_exact_value(expression: str, value: Fraction) -> None:
    assert arithmetic_value(expression) == value


@pytest.mark.parametrize(
    "expression", ["", "1/0", "9 ** 9 ** 9", "x + 1", "f(2)", "(" * 200 + "1" + ")" * 200, "1 +", "2 ** 0.5"]
)
def test_anything_else_has_none(expression: str) -> None:
    assert arithmetic_value(expression) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.fractions(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=12,
)


@given(values)
def test_typed_json_gives_back_what_it_was_given(value: Any) -> None:
    assert typed_json.loads(typed_json.dumps(value)) == value
    assert repr(typed_json.loads(typed_json.dumps([value, (value,)]))[1])[0] == "("


def test_what_has_no_form_in_json_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match="builtins.object has no form"):
        typed_json.dumps({"a": object()})
