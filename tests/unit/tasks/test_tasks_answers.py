"""Finding, writing and comparing final answers."""

from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import Number, compare, final_answer, parse_number, render_answer
from tasks.config import AnswerForm

FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)
any_form = st.sampled_from(FORMS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("19", "19"),
        ("7 + 12 = 19.", "19"),
        ("first 7, then 12, so 19 apples", "19"),
        ("7-12", None),
        ("the result is -5", "-5"),
        ("x = −5", "-5"),
        ("it costs $1,000.50", "$1,000.50"),
        ("10, 20, 30", None),
        ("about 12.5% of it", "12.5%"),
        ("one half, 1/2", "1/2"),
        ("that is 1 1/2 cups", "1 1/2"),
        (r"so \frac{3}{4}", r"\frac{3}{4}"),
        ("9 is wrong\n#### 42\nnot 7", "42"),
        (r"we get \boxed{8}, from 7 + 1", "8"),
        ("no digits at all", None),
        ("", None),
        ("####", None),
        (r"\boxed{4", None),
    ],
)
def test_number_form_takes_the_marked_answer_or_the_last_number(text: str, expected: str | None) -> None:
    assert final_answer(text, "number") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1} and then \boxed{2", None),
        (r"\boxed{}", None),
        ("2", None),
    ],
)
def test_boxed_form_takes_the_last_box_and_an_unclosed_one_is_no_answer(text: str, expected: str | None) -> None:
    assert final_answer(text, "boxed") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\na\n</think>\n<answer>\n42\n</answer>", "42"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1</answer> no: <answer>2", None),
        ("<answer></answer>", None),
        ("</answer><answer>", None),
        ("42", None),
    ],
)
def test_think_answer_form_takes_the_last_closed_span(text: str, expected: str | None) -> None:
    assert final_answer(text, "think_answer") == expected


@pytest.mark.parametrize("text", ["the sum is 1", "the sum is 1.", "the sum is 1,", "#### 1", "1/"])
def test_a_number_at_the_cut_may_be_half_a_number_and_does_not_count(text: str) -> None:
    assert final_answer(text, "number", truncated=True) is None
    assert final_answer(text, "number", truncated=False) == "1"


def test_a_number_before_the_cut_counts() -> None:
    assert final_answer("the sum is 19. So we", "number", truncated=True) == "19"


@given(st.integers(-(10**12), 10**12), any_form)
def test_what_is_rendered_is_found_again_and_equal(number: int, form: AnswerForm) -> None:
    found = final_answer(render_answer(str(number), form), form)
    assert found is not None
    assert compare(found, str(number)) is True


@given(st.integers(-(10**6), 10**6), any_form)
def test_a_rendered_answer_that_is_cut_anywhere_is_never_an_answer(number: int, form: AnswerForm) -> None:
    whole = render_answer(str(number), form)
    for length in range(len(whole)):
        assert final_answer(whole[:length], form, truncated=True) is None


@given(st.text(max_size=300), any_form, st.booleans())
def test_no_text_makes_extraction_or_comparison_raise(text: str, form: AnswerForm, truncated: bool) -> None:
    final = final_answer(text, form, truncated)
    assert compare(final if final is not None else text, "42") in (True, False, None)
    assert compare("42", text) in (True, False, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("$18", Fraction(18)),
        (r"\$18.00", Fraction(18)),
        ("$18$", Fraction(18)),
        ("18.", Fraction(18)),
        ("+3", Fraction(3)),
        ("-$5", Fraction(-5)),
        ("$-5", Fraction(-5)),
        (".5", Fraction(1, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        (r"-\frac{1}{3}", Fraction(-1, 3)),
        (r"\dfrac{-1}{3}", Fraction(-1, 3)),
        (r"\( 7 \)", Fraction(7)),
    ],
)
def test_a_decorated_number_has_an_exact_value(text: str, value: Fraction) -> None:
    assert parse_number(text) == Number(value)


@pytest.mark.parametrize(
    "text", ["", "x", "1,00,0", "1 2", "3 apples", "1/0", "1e", "9" * 101, "--5", "1.2.3", "1,000,0"]
)
def test_what_is_not_exactly_one_number_is_none(text: str) -> None:
    assert parse_number(text) is None


@given(st.integers(-(10**15), 10**15), st.integers(0, 9999))
def test_thousands_separators_and_decimals_do_not_change_the_value(whole: int, decimals: int) -> None:
    text = f"{whole:,}.{decimals:04d}"
    expected = Fraction(f"{whole}.{decimals:04d}")
    assert parse_number(text) == Number(expected)
    assert compare(text, str(expected)) is True


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_exactly_when_their_values_are(a: Fraction, b: Fraction) -> None:
    assert compare(str(a), str(b)) is (a == b)
    assert compare(f"\\frac{{{a.numerator}}}{{{a.denominator}}}", str(b)) is (a == b)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("1,000", "1000", True),
        ("18.0", "$18", True),
        ("1/2", "0.5", True),
        ("0.333", "1/3", False),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("50", "50%", True),
        ("50%", "50%", True),
        ("50%", "5", False),
        ("0.5%", "50%", False),
        ("Blue", "blue.", True),
        ("blue", "lube", False),
        (r"\text{blue}", "blue", True),
        ("seventeen", "17", False),
        ("", "17", False),
        ("x + 1", "1 + x", None),
        (r"\frac{\pi}{2}", r"\frac{\pi}{2}", True),
        (r"\pi/2", r"\frac{\pi}{2}", None),
        ("9" * 200, "9", False),
    ],
)
def test_the_fast_path_decides_numbers_and_words_and_leaves_algebra(
    answer: str, reference: str, same: bool | None
) -> None:
    assert compare(answer, reference) is same


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("<think>\n7+8+5=20\n4+3+2+2=11\n</think>\n110", "110"),
        ("<think>5</think> 12", "12"),
        ("<think>#### 5</think>\nThe answer is 12.", "12"),
        ("<reasoning>first 3, then 4</reasoning><answer>7</answer>", "7"),
        ("<answer>7</answer>", "7"),
        ("first 3</think>then 4</think>\n7", "7"),
        ("<think>\n7+8+5=20\n</think>", None),
        ("<think>5 or 12</think> 12 or 13", None),
    ],
)
def test_a_number_is_looked_for_behind_the_reasoning(text: str, final: str | None) -> None:
    assert final_answer(text, "number") == final
