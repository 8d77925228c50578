"""Math-Verify's own test cases through memr's judge; each row on which the two differ says why."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from contracts.ports import Answer
from contracts.problem import Problem
from tasks.answers import render_answer
from tasks.config import AnswerForm, TaskSettings
from tasks.judge import Judge, full_judge
from tasks.plain_writing import last_boxed
from tasks.stated_number import quantity, stated_number

FILE = Path(__file__).parents[2] / "data" / "answers" / "math_verify.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
MATHS = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\\$|[^$])+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
ALL_MATHS = re.compile(r"\s*\${1,2}[^$]+\${1,2}\s*")


def maths_in(text: str) -> str:
    """The last box, else the text where it is one formula, else its last formula: what a data set keeps of it."""
    if (boxed := last_boxed(text)) is not None:
        return boxed
    found = list(MATHS.finditer(text.strip()))
    whole = [match for match in found if match[0] == text.strip()]
    return next(group for group in (whole or found)[-1].groups() if group).strip() if found else text.strip()


def as_policy_writes(answer: str, reference: str) -> tuple[AnswerForm, str]:
    """Prose about a number goes through the number form as it stands, everything else into a box."""
    formula = ALL_MATHS.fullmatch(answer) is not None and stated_number(answer) is None
    if quantity(reference) is not None and last_boxed(answer) is None and not formula:
        return "number", answer
    return "boxed", render_answer(maths_in(answer), "boxed")


@pytest.fixture(scope="module")
def judges() -> dict[AnswerForm, Judge]:
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return {form: full_judge(TaskSettings(answer_form=form)) for form in ("number", "boxed")}


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case['test'].partition('::')[2]}" for i, case in enumerate(CASES)])
def test_a_case_of_math_verify_is_judged_alike_or_says_why_not(
    judges: dict[AnswerForm, Judge], case: dict[str, Any]
) -> None:
    reference = maths_in(case["gold"])
    form, text = as_policy_writes(case["answer"], reference)
    scored = judges[form].judge(Answer(Problem("p", "q", reference, ()), text, 5, 10, False))
    assert scored is not None
    assert (scored.correct != case["right"]) == ("we_differ" in case), case.get("we_differ", "")
