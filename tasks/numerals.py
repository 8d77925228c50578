"""Numbers as people write them, with their exact values: 1,000.5, -3/4, 1 1/2, 6.63e-34, 2 x 10^5, 50%, 3 million.

A numeral states a value; an expression (7 + 12, 2^10, 38/2) asks for one. Only numerals are read here: a fraction
counts in its lowest terms, a power only as a power of ten. The text is plain writing (`tasks.plain_writing.as_words`).

A comma before exactly three digits separates thousands (1,000; not after a leading zero), any other one is a decimal comma
(3,5; 0,125; 1.234,5); a text has one reading.
"""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

MAX_NUMBER_CHARS = 100
MIN_ROUNDED_DIGITS = 6

_THOUSANDS = r"(?!0)\d{1,3}(?:,\d{3}){1,8}(?!\d)"
_UNSIGNED = rf"(?:{_THOUSANDS}|\d{{1,3}}(?: \d{{3}}){{1,8}}(?!\d| ?/)|\d+)(?:\.\d+)?|\.\d+"
_POINTED = r"(?!0)\d{1,3}(?:(?:\.\d{3}){1,8},\d+|(?:\.\d{3}){2,8})(?![.,]?\d)"
_COMMA = rf"(?<!\d,)(?<![(\[{{])(?!{_THOUSANDS})(?:\d{{1,3}}(?: \d{{3}}){{1,8}}|\d+),\d+(?![.,]?\d)"
_TEN_POWER = (
    r"10\s?(?:\^|\*\*)\s?"
    r"(?:\{\s?(?P<ten_braced>[-+]?\d{1,4})\s?\}|\(\s?(?P<ten_round>[-+]?\d{1,4})\s?\)|(?P<ten_plain>[-+]?\d{1,4}))"
)
_TIMES_TEN = rf"(?:[eE](?P<exponent>[-+]?\d{{1,4}})(?![\w.])|\s?(?:\\times|\\cdot|\*|x)\s?{_TEN_POWER})?"
_FRACTION = (
    r"(?:(?P<whole>\d+)(?:\s+|(?=\\)))?"
    r"(?:\\frac\{\s?(?P<top>-?\d+)\s?\}\{\s?(?P<bottom>\d+)\s?\}|(?P<over>\d+)\s?/\s?(?P<under>\d+)(?!\d|\.\d))"
)
_CURRENCY = r"(?:[A-Z]{0,2}\$|[€£¥₹₩₽]|(?:USD|EUR|GBP|Rs\.?)(?=\s?\d))"
NUMERAL = re.compile(
    rf"(?<![\w.^\\])(?<![\^_]\{{)(?P<sign>[-+]\s?)?(?:{_CURRENCY}\s?(?P<inner>-?))?"
    rf"(?:{_FRACTION}|(?P<alone>{_TEN_POWER.replace('ten_', 'lone_')})(?!\d)|(?:(?P<pointed>{_POINTED})|(?P<comma>{_COMMA})|(?P<decimal>{_UNSIGNED})){_TIMES_TEN})"
)
"""One numeral, a percent sign and a unit not included. A sign counts where nothing stands before it that it could
be taken from: see `find_numerals`."""

_POWERS = tuple(f"{which}_{how}" for which in ("ten", "lone") for how in ("braced", "round", "plain"))

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number as written; `percent` when a percent sign followed it (value is then not divided by 100).

    digits: significant digits of a decimal with a fractional part, 0 for whole numbers and fractions. unit: one unit
    of its last digit. lowest: False for a fraction that is not in its lowest terms, which asks for a division. comma: one
    comma is all that separates its digits ("3,5"), as in a list of two.
    """

    value: Fraction
    percent: bool = False
    digits: int = field(default=0, compare=False)
    unit: Fraction = field(default=Fraction(1), compare=False)
    lowest: bool = field(default=True, compare=False)
    comma: bool = field(default=False, compare=False)


def read_numeral(match: re.Match[str]) -> Number | None:
    """The value of a match of NUMERAL; None for a number that is too long, or over zero."""
    found = match.groupdict()
    if len(match[0]) > MAX_NUMBER_CHARS:
        return None
    number = _fraction(found) if found["top"] or found["over"] else _decimal(found)
    negative = ((found["sign"] or "").strip() == "-") != (found["inner"] == "-")
    return replace(number, value=-number.value) if number is not None and negative else number


def is_rounding(decimal: Number, value: Fraction) -> bool:
    """Whether the decimal, of at least six significant digits, is this value rounded or cut, where the value has no
    finite decimal writing. What can be written out must be written out: 1 - 2^-30 is not 1.000000."""
    if decimal.percent or decimal.digits < MIN_ROUNDED_DIGITS:
        return False
    return is_nearest(decimal.value, decimal.unit, value) and not is_finite_decimal(value)


def is_nearest(rounded: Any, unit: Any, value: Any) -> bool:
    """Whether `rounded` is the value rounded to a multiple of the unit, or cut. All may be sympy's."""
    missing = abs(value) - abs(rounded)
    return bool(2 * abs(value - rounded) <= unit or (0 <= missing < unit and value * rounded > 0))


def is_finite_decimal(value: Fraction) -> bool:
    """1/8 is one (0.125), 1/3 is none."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _fraction(found: dict[str, str | None]) -> Number | None:
    top, bottom = int(found["top"] or found["over"] or 0), int(found["bottom"] or found["under"] or 0)
    if bottom == 0:
        return None
    value = Fraction(top, bottom)
    return Number(int(found["whole"] or 0) + value, lowest=value.denominator == bottom)


def _decimal(found: dict[str, str | None]) -> Number | None:
    powers = (found[name] for name in ("exponent", *_POWERS))
    power = next((int(power) for power in powers if power), 0)
    written = _with_point(found)
    places = len(written.partition(".")[2]) - power
    digits = len(written.replace(".", "").lstrip("0")) if places > 0 else 0
    return Number(
        Fraction(written) * Fraction(10) ** power,
        digits=digits,
        unit=Fraction(10) ** -places,
        comma=found["comma"] is not None,
    )


def _with_point(found: dict[str, str | None]) -> str:
    """The digits with a decimal point, without separators of thousands. A power of ten alone stands for 1 times it."""
    if continental := found["pointed"] or found["comma"]:
        return continental.replace(".", "").replace(" ", "").replace(",", ".")
    return (found["decimal"] or "1").replace(",", "").replace(" ", "")
