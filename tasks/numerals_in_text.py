"""The numerals of a text with their units, and whether a numeral stands for itself where it is found.

"19", "19 cm", "19%" and "19 apples" do; "19x", "19!", "f(19)", "x + 19" and "19:30" are parts of something else. The
text is plain writing (`tasks.plain_writing.as_words`).
"""

import re
from dataclasses import dataclass, replace

from tasks.numerals import NUMERAL, SCALES, Number, read_numeral

CONTEXT_CHARS = 60

_PERCENT = re.compile(r"\s?(?:%|(?:percentage points?|per ?cent|percentage|pct)\b)", re.IGNORECASE)
_DEGREE = re.compile(r"\s?\^\s?\{?\s?\\circ\s?\}?(?:\s?[CF]\b)?|\s?\\degree\b")
_SCALE = re.compile(rf"\s?({'|'.join(SCALES)})s?\b", re.IGNORECASE)
_UNIT = re.compile(r"(\s?)([A-Za-z]+)(?:\s?\^\s?\{?[23]\}?|[23](?!\d))?(?:\s?/\s?[A-Za-z]+(?:\^\{?[23]\}?)?)?")
_SHORT = (
    "m s g l L h d t A V W J N K C F B cm mm km kg mg ml mL dm nm um ft yd in mi lb oz hr min kB MB GB Hz kW Pa pm am "
    "cc kmh mph sq USD a st nd rd th"
)
_OTHER_WORDS = "plus minus over mod or and to x is are was were equals equal make makes gives yields becomes pi e i"
_FEW = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_PART = r"hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?"
_CHANGED_AFTER = re.compile(
    rf"\s*(?:,?\s*(?:and\s+(?:an?\s+|(?:{_FEW})[\s-]+)(?:{_PART})|and\s+(?:{_FEW})\s*[.!]?\s*$"
    rf"|(?:plus|minus|less|times|over|divided by|multiplied by)\s+(?:an?\s+)?(?:{_FEW}|{_PART}|itself))|"
    r"squared|cubed|factorial|below zero)\b",
    re.IGNORECASE,
)
"""Words that make another value of the number before them: 42 and a half, 42 plus one, 42 squared; not "42 times"."""
_SHORT_UNITS = frozenset(_SHORT.split())
_NO_UNIT = frozenset(_OTHER_WORDS.split())

_OPERAND_BEFORE = re.compile(
    r"(?:[-+]\s*\(|[-+*/^_<>!&|~]|\\(?!(?:to|mapsto|approx|implies|Rightarrow|rightarrow|longrightarrow|therefore|colon)\b)[A-Za-z]+\s*[{(\[]?"
    r"|[\^_}\])A-Za-z0-9]\s*\{|[A-Za-z0-9]\(|\b(?:[A-Za-z]|\d+)\s?[-]"
    r"|\b(?:not|never|than|least|most|sqrt|log|ln|sin|cos|tan|mod|plus|times|(?:root|square|cube|half|double|twice|multiple|"
    r"factor|power|divided|multiplied|between|under|above|below|over) ?(?:of|by)?)|n't)\s*[{(]?\s*$",
    re.IGNORECASE,
)
_TAKEN_FROM = re.compile(r"(?:[\d)}\]]|(?<![A-Za-z\\])[A-Za-z])\s*$")
_SUBTRACTED = re.compile(r"(?:[\d)}\]]|(?<![A-Za-z])[A-Za-z])\s*-\s*$")


@dataclass(frozen=True, slots=True)
class Numeral:
    """start, end: of the numeral with percent sign or scale; unit_end: with its unit. closed: nothing follows that
    would make it a part of something else ("19x", "19!", "19 + x", "19:30")."""

    start: int
    end: int
    unit_end: int
    number: Number | None
    closed: bool


def find_numerals(words: str) -> list[Numeral]:
    """All of them, from left to right."""
    return [_numeral(words, match) for match in NUMERAL.finditer(words)]


def _numeral(words: str, match: re.Match[str]) -> Numeral:
    start, end, number = match.start(), match.end(), read_numeral(match)
    if (sign := match["sign"]) and _TAKEN_FROM.search(words[max(0, start - 8) : start]):  # "x - 5": an operation
        start += len(sign)
        number = replace(number, value=-number.value) if number and sign.strip() == "-" else number
    if (percent := _PERCENT.match(words, end)) and number:
        end, number = percent.end(), replace(number, percent=True)
    elif (scale := _SCALE.match(words, end)) and number:
        end, number = scale.end(), replace(number, value=number.value * SCALES[scale[1].lower()], digits=0)
    unit_end, closed = _unit_end(words, end)
    return Numeral(start, end, unit_end, number, closed and _is_closed(words, start, end, unit_end))


def _unit_end(words: str, end: int) -> tuple[int, bool]:
    """Where the unit ends that begins at `end`, and False where letters follow that are no unit: 19x, 19 pi."""
    if degree := _DEGREE.match(words, end):
        return degree.end(), True
    if (unit := _UNIT.match(words, end)) is None:
        return end, True
    word = unit[2]
    if word.lower() in _NO_UNIT:
        return end, not (word in ("pi", "e", "i", "x") or not unit[1])
    if word in _SHORT_UNITS or len(word) >= (2 if unit[1] else 3):
        return unit.end(), True
    return end, False


def _is_closed(words: str, start: int, end: int, unit_end: int) -> bool:
    """Whether nothing follows that makes a part of something else of the number, or another value."""
    after = words[unit_end : unit_end + 40]
    if _CHANGED_AFTER.match(words, end):
        return False
    if after.startswith("!") and not after[1:].strip("! "):
        return (
            re.search(r"[A-Za-z]{2}", words[max(0, start - CONTEXT_CHARS) : start]) is not None
        )  # "It is 19!", but not "19!"
    return re.match(
        r"\s*[*^_\\<>!|&~%]|\s*\.\.+\s?\d|\s*[-+](?!\s+[A-Za-z]{2})|\s*/(?!\s?[A-Za-z]{2}|\s*$)|[.,:]?\d|[({]\S|[A-Za-z]",
        after,
    ) is None or (unit_end > end and after.startswith(("(", "{")))


def is_operand(words: str, numeral: Numeral) -> bool:
    """Whether what stands before the numeral makes it an operand, an exponent, an index, a bound, or is an equation
    in unknowns with numbers of its own: "x + 7", "f(19", "2x = 38"."""
    before = words[max(0, numeral.start - CONTEXT_CHARS) : numeral.start]
    if _OPERAND_BEFORE.search(before) or _SUBTRACTED.search(before):
        return True
    if not before.rstrip().endswith("="):
        return False
    label = re.split(r"[,;.\n:]", before.rstrip().rstrip("="))[-1]
    if re.search(r"(?<![\w)])[A-Za-z]+\([^()=]*\)\s*$", label):  # f(3) = 42
        return False
    return re.search(r"(?<![\w{])\d", label) is not None and re.search(r"[A-Za-z]{3}", label) is None
