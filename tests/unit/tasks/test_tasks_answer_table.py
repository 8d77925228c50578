"""The table of answers, in the three answer forms, through the route that a run takes."""

import logging
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest

from contracts.ports import Answer
from contracts.problem import Problem
from tasks.answers import render_answer
from tasks.config import AnswerForm, TaskSettings
from tasks.judge import Judge, full_judge, quick_judge
from tasks.stated_number import quantity
from tests.unit.tasks.answer_rows import RIGHT_NUMBERS, RIGHT_TEXTS, WRONG_NUMBERS, WRONG_TEXTS
from tests.unit.tasks.answer_rows_too import RIGHT_TOO, TEXTS_THAT_DO_NOT, TEXTS_THAT_STATE_42, WRONG_TOO

FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)
Row = tuple[str, str]


def rows(*tables: Mapping[str, Sequence[str]]) -> list[Row]:
    return [(reference, answer) for table in tables for reference, answers in table.items() for answer in answers]


def judged(judge: Judge, form: AnswerForm, reference: str, answer: str) -> bool | None:
    scored = judge.judge(Answer(Problem("p", "q", reference, ()), render_answer(answer, form), 5, 10, False))
    return None if scored is None else scored.correct


@pytest.fixture(scope="module")
def judges() -> dict[AnswerForm, tuple[Judge, Judge]]:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    made = {}
    for form in FORMS:
        settings = TaskSettings(answer_form=form)
        quick = quick_judge(settings)
        assert quick is not None
        made[form] = (quick, full_judge(settings))
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("table", "right"),
    [
        (RIGHT_NUMBERS, True),
        (WRONG_NUMBERS, False),
        (RIGHT_TEXTS, True),
        (WRONG_TEXTS, False),
        (RIGHT_TOO, True),
        (WRONG_TOO, False),
    ],
    ids=["right numbers", "wrong numbers", "right texts", "wrong texts", "more right", "more wrong"],
)
def test_answers_of_the_table_are_judged_as_it_says(
    judges: dict[AnswerForm, tuple[Judge, Judge]], form: AnswerForm, table: dict[str, list[str]], right: bool
) -> None:
    """The number form is for references that are numbers."""
    quick, full = judges[form]
    misjudged = []
    for reference, answer in rows(table):
        if form == "number" and quantity(reference) is None:
            continue
        at_once, asked = judged(quick, form, reference, answer), judged(full, form, reference, answer)
        if asked is not right or at_once not in (right, None):
            misjudged.append((reference, answer, at_once, asked))
    assert misjudged == []


def test_the_table_is_as_large_as_it_says() -> None:
    assert len(rows(RIGHT_NUMBERS, RIGHT_TEXTS)) >= 150
    assert len(rows(WRONG_NUMBERS, WRONG_TEXTS)) >= 150
    both = set(rows(RIGHT_NUMBERS, RIGHT_TEXTS, RIGHT_TOO)) & set(rows(WRONG_NUMBERS, WRONG_TEXTS, WRONG_TOO))
    assert both == set()


@pytest.mark.parametrize("reference", RIGHT_NUMBERS)
def test_a_number_is_judged_without_the_algebra_system(
    judges: dict[AnswerForm, tuple[Judge, Judge]], reference: str
) -> None:
    quick, _ = judges["think_answer"]
    answers = [*RIGHT_NUMBERS[reference], *WRONG_NUMBERS.get(reference, ())]
    undecided = [answer for answer in answers if judged(quick, "think_answer", reference, answer) is None]
    assert undecided == []


@pytest.mark.parametrize(
    ("texts", "right"), [(TEXTS_THAT_STATE_42, True), (TEXTS_THAT_DO_NOT, False)], ids=["state it", "do not"]
)
def test_whole_texts_of_the_number_form_state_42_or_do_not(
    judges: dict[AnswerForm, tuple[Judge, Judge]], texts: list[str], right: bool
) -> None:
    misjudged = []
    for text in texts:
        verdicts = [judge.judge(Answer(Problem("p", "q", "42", ()), text, 5, 10, False)) for judge in judges["number"]]
        if [v.correct for v in verdicts if v is not None][-1] is not right:
            misjudged.append(text)
    assert misjudged == []
