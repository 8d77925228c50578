"""Whether two final answers are the same, as far as this can be told without a computer algebra system.

    reference is a number     the answer must state that number: decided here, whatever the answer is
    reference is a word       the same word
    reference is mathematics  the same writing is right; anything else is for tasks.math_check

The full route asks here first and the algebra system only for None, so that the two routes cannot disagree. Linear
in the text, never raises.
"""

import re
from dataclasses import replace

from tasks.numerals import MIN_ROUNDED_DIGITS, NUMERAL, Number, is_rounding, read_numeral
from tasks.plain_writing import as_words, last_boxed
from tasks.stated_number import quantity, same_number, stated_number

PROSE_WORDS = 4
"""A reference of so many words is a text, whatever numbers stand in it."""

_WORDS = re.compile(r"[a-z][a-z\s',;.-]*")
_SYMBOLS = re.compile(
    r"[a-z]|(?!(?:am|an|as|at|be|by|do|go|he|hi|if|in|is|it|me|my|no|of|on|or|ox|so|to|up|us|we)$)[a-z]{2}|[b-df-hj-np-tv-z]{3}"
)
_MATHS_NAMES = re.compile(r"\b(?:pi|infty|infinity|sin|cos|tan|cot|sec|csc|log|ln|sqrt|exp)\b")
_LEAD = re.compile(
    r"^(?:so |thus |therefore |hence )?,?\s*(?:the |my )?(?:final |correct |right )?(?:answer|option|choice)\s*(?:is|:|=)?\s*:?\s+"
)
_LONG_WORD = re.compile(r"[a-z]{3,}")
_CHOICE = re.compile(r"\(?([a-z])\)?[.:]?")
_CLOCK = re.compile(r"0?(\d{1,2}):(\d{2}(?::\d{2})?)\s*(?:([ap])\.?\s?m\.?)?")


def compare(answer: str, reference: str) -> bool | None:
    """Whether two final answers are the same; None where only a computer algebra system could tell.

    Numbers are compared as exact fractions; a decimal of six digits or more may also be the rounding of a value that
    has no finite decimal writing.
    """
    answer, reference = last_boxed(answer) or answer, last_boxed(reference) or reference
    mine, theirs = _plain(answer), _plain(reference)
    if not mine:
        return False
    if mine == theirs:
        return True
    if (expected := reference_number(reference)) is not None:
        return _states(answer, expected)
    if _CLOCK.fullmatch(theirs):  # times of day are text: 20:60 is not 10:30
        return _clock(mine) == _clock(theirs)
    return _compare_words(mine, theirs)


def reference_number(reference: str) -> Number | None:
    """The number that a reference is. "3,5" is none: data sets write two answers so, and no calculation tells which it is."""
    number = quantity(reference)
    return None if number is None or number.comma else number


def parse_number(text: str) -> Number | None:
    r"""The number that the whole text is, decorations aside: "$1,000.5", "-3/4", "\frac{1}{2}", "1 1/2", "50%", "1e3"."""
    text = as_words(text).strip("$").strip().removesuffix(".")
    percent = text.endswith("%")
    match = NUMERAL.fullmatch(text.removesuffix("%").strip())
    number = read_numeral(match) if match is not None else None
    return replace(number, percent=percent) if number is not None else None


def _states(answer: str, expected: Number) -> bool | None:
    stated = stated_number(answer)
    if stated is None:  # only for a rounded reference may the exact value stand: 4.123105625617661 for sqrt(17)
        return None if expected.digits >= MIN_ROUNDED_DIGITS else False
    number = stated.number
    if same_number(number, expected):
        return number.lowest
    if number.percent or expected.percent:
        return False
    return is_rounding(number, expected.value) or (number.lowest and is_rounding(expected, number.value))


def _compare_words(mine: str, theirs: str) -> bool | None:
    if len(_LONG_WORD.findall(theirs)) >= PROSE_WORDS and "\\" not in theirs:
        return False
    if _is_wordy(theirs):
        if _SYMBOLS.fullmatch(theirs):  # "e" may be 2.718282, and "yx" is "xy"
            return None if _may_be_the_symbols(mine, theirs) else False
        return False
    return False if _is_wordy(mine) and not _SYMBOLS.fullmatch(mine) else None


def _may_be_the_symbols(mine: str, theirs: str) -> bool:
    """Whether mine could have the value of these letters: their product in another order, or a formula."""
    if quantity(mine) is not None:
        return theirs in ("e", "i")
    return sorted(mine.replace(" ", "")) == sorted(theirs) or not _is_wordy(mine)


def _is_wordy(text: str) -> bool:
    return _WORDS.fullmatch(text) is not None and _MATHS_NAMES.search(text) is None


def _clock(text: str) -> tuple[str | None, ...] | str:
    match = _CLOCK.fullmatch(text)
    return text if match is None else match.groups()


def _plain(text: str) -> str:
    """For comparing writings: plain writing in small letters, without the words that announce an answer."""
    text = " ".join(as_words(text).strip("\"'").casefold().split())
    if text.startswith("$") and text.endswith("$"):
        text = text.strip("$ ")
    text = _LEAD.sub("", text).rstrip(".").strip()
    choice = _CHOICE.fullmatch(text)
    return choice[1] if choice is not None else text
