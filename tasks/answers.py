"""Final answers: find them in a text, write them in the answer form, compare them without any solver.

    policy text -> final_answer -> compare with the reference -> True | False | None (ask tasks.math_check)

Everything here is linear in the text and never raises, so it may run on a worker's own threads.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from tasks.config import AnswerForm

BOX = "\\boxed{"
MAX_NUMBER_CHARS = 100

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_FRACTION = r"\\[dt]?frac\{-?\d+\}\{\d+\}|\d+\s\d+/\d+|\d+/\d+"
_CURRENCY = r"(?:\\?\$|[€£¥])?"
_NUMBER_IN_TEXT = re.compile(rf"(?:(?<![\w)\]}}])[-+−])?{_CURRENCY}(?:{_FRACTION}|{_UNSIGNED})(?:\s?\\?%)?")
_WHOLE_NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s?(?:(?:\\?\$|[€£¥])\s?(?P<inner>-?))?"
    rf"(?:\\[dt]?frac\{{(?P<top>-?\d+)\}}\{{(?P<bottom>\d+)\}}"
    rf"|(?:(?P<whole>\d+)\s)?(?P<over>\d+)\s?/\s?(?P<under>\d+)|(?P<decimal>{_UNSIGNED}))(?P<percent>\s?\\?%)?"
)
_WORDS = re.compile(r"[a-z][a-z\s',;-]*")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number as written; `percent` when a percent sign followed it (value is then not divided by 100)."""

    value: Fraction
    percent: bool = False


def final_answer(text: str, form: AnswerForm, truncated: bool = False) -> str | None:
    """The answer that the text ends on, None where there is none in this form.

    truncated: the text was cut off at the length limit, so a number that touches its end may be half a number.
    """
    if form == "think_answer":
        return _last_between(text, "<answer>", "</answer>")
    if form == "boxed":
        return _last_boxed(text)
    if "####" in text:
        line, newline, _ = text.rpartition("####")[2].partition("\n")
        return _last_number(line, truncated and not newline)
    if BOX in text:
        return _last_boxed(text)
    return _last_number(text, truncated)


def render_answer(answer: str, form: AnswerForm, reasoning: str = "") -> str:
    """A model answer: what `final_answer` finds `answer` in. The number form shows no reasoning."""
    if form == "number":
        return answer
    if form == "boxed":
        return f"{reasoning}\n{BOX}{answer}}}".strip()
    return f"<think>\n{reasoning or answer}\n</think>\n<answer>\n{answer}\n</answer>"


def parse_number(text: str) -> Number | None:
    """The number that the whole text is, decorations aside: "$1,000.5", "-3/4", "\\frac{1}{2}", "1 1/2", "50%"."""
    text = _undecorated(text)
    if len(text) > MAX_NUMBER_CHARS or (match := _WHOLE_NUMBER.fullmatch(text)) is None:
        return None
    found = match.groupdict()
    if found["decimal"] is not None:
        value = Fraction(found["decimal"].replace(",", ""))
    else:
        top, bottom = int(found["top"] or found["over"]), int(found["bottom"] or found["under"])
        if bottom == 0:
            return None
        value = int(found["whole"] or 0) + Fraction(top, bottom)
    negative = (found["sign"] in ("-", "−")) != (found["inner"] == "-")
    return Number(-value if negative else value, found["percent"] is not None)


def compare(answer: str, reference: str) -> bool | None:
    """Whether two final answers are the same; None where only a computer algebra system could tell.

    Numbers are compared as exact fractions. A percent sign on one side alone is a unit ("50%" is 50) or a
    factor ("50%" is 0.5): both readings count.
    """
    mine, theirs = _comparable(answer), _comparable(reference)
    if not mine:
        return False
    if mine == theirs:
        return True
    number, expected = parse_number(answer), parse_number(reference)
    if number is not None and expected is not None:
        return _same_number(number, expected)
    wordy, expected_wordy = _WORDS.fullmatch(mine) is not None, _WORDS.fullmatch(theirs) is not None
    if (wordy or number is not None) and (expected_wordy or expected is not None):
        return False
    return None


def _same_number(a: Number, b: Number) -> bool:
    if a.percent == b.percent:
        return a.value == b.value
    return a.value == b.value or (a.value / 100 if a.percent else a.value) == (b.value / 100 if b.percent else b.value)


def _last_between(text: str, opening: str, closing: str) -> str | None:
    """The last closed span; a span opened after it is an answer that was never finished, so there is none."""
    start = text.rfind(opening)
    end = text.find(closing, start)
    if start < 0 or end < 0:
        return None
    return text[start + len(opening) : end].strip() or None


def _last_boxed(text: str) -> str | None:
    start = text.rfind(BOX)
    if start < 0:
        return None
    depth = 1
    for position in range(start + len(BOX), len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + len(BOX) : position].strip() or None
    return None


def _last_number(text: str, truncated: bool) -> str | None:
    numbers = list(_NUMBER_IN_TEXT.finditer(text))
    if not numbers or (truncated and text[numbers[-1].end() :] in ("", ".", ",", "/")):
        return None
    return numbers[-1][0]


def _undecorated(text: str) -> str:
    """Without surrounding spaces, dollar signs of LaTeX maths, thin spaces and the full stop of a sentence."""
    text = text.strip().removesuffix(".").replace("\\!", "").replace("\\,", "").strip()
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            text = text[len(opening) : -len(closing)].strip()
    return text


def _comparable(text: str) -> str:
    text = _undecorated(text)
    if text.startswith("\\text{") and text.endswith("}") and text.count("{") == 1:
        text = text[len("\\text{") : -1]
    return " ".join(text.casefold().split())
