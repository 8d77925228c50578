"""Final answers: find them in a text, write them in the answer form. `docs/answers.md` has the rule in words.

    policy text -> final_answer -> tasks.compare_answers -> True | False | None (ask tasks.math_check)

Everything here is linear in the text and never raises, so it may run on a worker's own threads.
"""

import re

from tasks.compare_answers import compare, parse_number
from tasks.config import AnswerForm
from tasks.numerals import Number
from tasks.plain_writing import BOX, last_boxed
from tasks.stated_number import first_number, stated_number

__all__ = ["BOX", "Number", "compare", "final_answer", "parse_number", "render_answer"]

_REASONING_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>")
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,30}>")


def final_answer(text: str, form: AnswerForm, truncated: bool = False) -> str | None:
    """The answer that the text ends on, None where there is none in this form.

    number: the number after the last ####, in the last box, or the one that the text states, in plain writing.
    truncated: the text was cut off at the length limit, so a number that touches its end may be half a number.
    """
    if form == "think_answer":
        return _last_between(text, "<answer>", "</answer>")
    if form == "boxed":
        return last_boxed(text)
    text = _after_reasoning(text)
    if "####" in text:
        line, newline, _ = text.rpartition("####")[2].partition("\n")
        stated = first_number(line, truncated=truncated and not newline)
    elif (boxed := last_boxed(text)) is not None or BOX in text:
        return boxed
    else:
        stated = stated_number(text, truncated=truncated)
    return stated.text if stated is not None else None


def _after_reasoning(text: str) -> str:
    """What follows the last closed span of reasoning, all of it where there is none; other tags are no writing."""
    end = max((found.end() for found in _REASONING_ENDS.finditer(text)), default=0)
    return _TAG.sub("\n", text[end:])


def render_answer(answer: str, form: AnswerForm, reasoning: str = "") -> str:
    """A model answer: what `final_answer` finds `answer` in. The number form shows no reasoning."""
    if form == "number":
        return answer
    if form == "boxed":
        return f"{reasoning}\n{BOX}{answer}}}".strip()
    return f"<think>\n{reasoning or answer}\n</think>\n<answer>\n{answer}\n</answer>"


def _last_between(text: str, opening: str, closing: str) -> str | None:
    """The last closed span; a span opened after it is an answer that was never finished, so there is none."""
    start = text.rfind(opening)
    end = text.find(closing, start)
    if start < 0 or end < 0:
        return None
    return text[start + len(opening) : end].strip() or None
