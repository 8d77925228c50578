"""Reward parts, each against hand-counted values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.ports import Answer
from contracts.problem import Problem
from tasks.answers import final_answer
from tasks.config import REWARD_NAMES, AnswerForm
from tasks.rewards import RewardInput, WeightedPart, built_in, combine

PROBLEM = Problem("p", "What is 7 + 12?", "19", ())
PERFECT = "<think>\n7 + 12\nis 19\n</think>\n<answer>\n19\n</answer>"


def reward_input(
    text: str, form: AnswerForm = "think_answer", *, correct: bool = True, tokens: int = 10, truncated: bool = False
) -> RewardInput:
    answer = Answer(PROBLEM, text, tokens, 100, truncated)
    return RewardInput(answer, form, final_answer(text, form, truncated), correct)


def value(part: str, inputs: RewardInput) -> float:
    return built_in(part)(inputs)


def test_correctness_is_one_or_nothing() -> None:
    assert value("correctness", reward_input("", correct=True)) == 1.0
    assert value("correctness", reward_input("", correct=False)) == 0.0


@pytest.mark.parametrize(
    ("form", "text", "strict", "soft"),
    [
        ("think_answer", PERFECT, 1.0, 1.0),
        ("think_answer", PERFECT + "\n", 1.0, 1.0),
        ("think_answer", "<think>a</think><answer>19</answer>", 0.0, 1.0),
        ("think_answer", "Well: " + PERFECT, 0.0, 1.0),
        ("think_answer", PERFECT + PERFECT, 0.0, 1.0),
        ("think_answer", "<answer>19</answer><think>a</think>", 0.0, 0.0),
        ("think_answer", "19", 0.0, 0.0),
        ("boxed", "so it is $\\boxed{19}$.", 1.0, 1.0),
        ("boxed", "\\boxed{19} is it", 0.0, 1.0),
        ("boxed", "\\boxed{18} \\boxed{19}", 0.0, 1.0),
        ("boxed", "19", 0.0, 0.0),
        ("number", "19", 1.0, 1.0),
        ("number", " $19.00\n", 1.0, 1.0),
        ("number", "It is 19", 0.0, 1.0),
        ("number", "nineteen", 0.0, 0.0),
        ("number", "", 0.0, 0.0),
    ],
)
def test_format_wants_the_form_and_nothing_else_soft_format_the_form_somewhere(
    form: AnswerForm, text: str, strict: float, soft: float
) -> None:
    assert value("format", reward_input(text, form)) == strict
    assert value("soft_format", reward_input(text, form)) == soft


@pytest.mark.parametrize(
    ("text", "expected"), [("19", 1.0), ("-3", 1.0), ("19.0", 0.0), ("1/2", 0.0), ("$19", 0.0), ("none", 0.0)]
)
def test_integer_wants_digits_alone(text: str, expected: float) -> None:
    assert value("integer", reward_input(text, "number")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PERFECT, 1.0),
        ("<think>a</think>", 0.5),
        ("<think>a</think><answer>19", 0.75),
        ("<think><think>a</think><answer>19</answer>", 0.75),
        (PERFECT + "x" * 50, 1.0 - 0.1),
        (PERFECT + "x" * 5000, 0.0),
        ("", 0.0),
    ],
)
def test_xml_count_gives_a_quarter_per_tag_and_takes_back_what_trails(text: str, expected: float) -> None:
    assert value("xml_count", reward_input(text)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tokens", "correct", "expected"),
    [
        (0, True, 1.0),
        (50, True, 0.75),
        (100, True, 0.5),
        (0, False, -1.0),
        (50, False, -0.75),
        (100, False, -0.5),
        (25, True, 0.5 + 0.25 * (1 + math.sqrt(0.5))),
    ],
)
def test_cosine_length_prefers_short_when_right_and_long_when_wrong(
    tokens: int, correct: bool, expected: float
) -> None:
    assert value("cosine_length", reward_input("19", correct=correct, tokens=tokens)) == pytest.approx(expected)


def test_cosine_length_of_a_truncated_answer_is_the_worst() -> None:
    assert value("cosine_length", reward_input("19", correct=True, tokens=100, truncated=True)) == -1.0


def test_parts_are_weighted_and_add_up() -> None:
    parts = [WeightedPart(name, weight, built_in(name)) for name, weight in (("correctness", 1.0), ("format", 0.5))]
    scored = combine(reward_input(PERFECT), parts)
    assert scored.parts == {"correctness": 1.0, "format": 0.5}
    assert (scored.value, scored.correct) == (1.5, True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "1", True])
def test_a_part_that_is_not_a_finite_number_is_an_error_that_names_it(bad: float) -> None:
    with pytest.raises(ValueError, match="reward part 'mine'"):
        combine(reward_input("19"), [WeightedPart("mine", 1.0, lambda inputs: bad)])


@given(
    st.text(alphabet="<>/thinkaswer\n19 \\boxed{}", max_size=120), st.sampled_from(["think_answer", "boxed", "number"])
)
def test_every_part_is_finite_and_bounded_for_any_text(text: str, form: AnswerForm) -> None:
    for name in REWARD_NAMES:
        assert -1.0 <= value(name, reward_input(text, form, correct=False)) <= 1.0
