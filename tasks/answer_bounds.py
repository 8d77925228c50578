"""What a computer algebra system may be asked about an answer, decided on its text: nothing cheap to write is costly.

A tower of powers, a factorial of a million, fifty brackets or an unevaluated sum take seconds, or never end, once they
are parsed. They are no final answers, so they are wrong without being read.
"""

import re

MAX_CHARS = 400
MAX_DEPTH = 3
MAX_DIGITS = 40
MAX_POWER = 10_000
MAX_BRACKET_POWER = 12
MAX_FACTORIAL = 5_000
MAX_SIGNS = 60

_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1},}}")
_POWER = re.compile(r"(.)\s*(?:\^|\*\*)\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\([^()]*\)|[-+]?\d+|\\?\w+)", re.DOTALL)
_BINOMIAL = re.compile(r"\\[dt]?binom[^A-Za-z].*\d{5}", re.DOTALL)
_NESTED_INDEX = re.compile(r"_\s*\{[^{}]*_\s*\{")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:\{[^{}]*\}|\([^()]*\)|[-+]?\d+)\s*(?:\^|\*\*)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_FACTORIAL = re.compile(r"(.)\s*!(?!=)", re.DOTALL)
_SIGN = re.compile(r"[-+*/^=,;<>!&]|\\[A-Za-z]+")
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|iiint|oint|lim|limsup|liminf|det|gcd|max|min|bmod|pmod|mod)(?![A-Za-z])|∑|∏|∫"
)
_CLAIMS = re.compile(
    r"\\(?:to|mapsto|implies|iff|approx|sim|simeq|cong|(?:Right|right|Longright|longright|left|Left)\w*arrow|[lc]?dots)(?![A-Za-z])|[-=]>|:|\.\.\.|…"
)


def is_affordable(answer: str, reference: str) -> bool:
    """Whether the answer may be parsed, evaluated and compared. What the reference holds itself is allowed."""
    if (
        len(answer) > max(MAX_CHARS, 2 * len(reference))
        or _depth(answer) > max(MAX_DEPTH, 1 + _depth(reference))
        or _DIGITS.search(answer)
        or _BINOMIAL.search(answer)
        or _NESTED_INDEX.search(answer)
    ):
        return False
    if len(_SIGN.findall(answer)) > max(MAX_SIGNS, 2 * len(_SIGN.findall(reference))):
        return False
    asked = set(_UNEVALUATED.findall(answer)) <= set(_UNEVALUATED.findall(reference))
    return (
        asked
        and powers_are_small(answer)
        and all(_is_small_factorial(answer, match) for match in _FACTORIAL.finditer(answer))
    )


def claims_something_else(answer: str, reference: str) -> bool:
    r"""Whether the answer leads from one value to another ("43 \to 42"), where the reference does nothing like it."""
    return not set(_CLAIMS.findall(answer)) <= set(_CLAIMS.findall(reference))


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def powers_are_small(text: str) -> bool:
    """A literal exponent of at most MAX_POWER, over brackets MAX_BRACKET_POWER; no power of numbers in an exponent."""
    if _TOWER.search(text):
        return False
    over_brackets = 1.0
    for match in _POWER.finditer(text):
        base, exponent = match[1], match[2]
        sizes = [float(number) for number in _NUMBER.findall(exponent)]
        if any(size > MAX_POWER for size in sizes) or re.search(r"[\d)}\]!]\s*(?:\^|\*\*|!)", exponent):
            return False
        if base in ")}]":
            over_brackets *= max([1.0, *sizes])
    return over_brackets <= MAX_BRACKET_POWER


def _is_small_factorial(text: str, match: re.Match[str]) -> bool:
    digits = re.search(r"\d+$", text[: match.start() + 1])
    return match[1].isalpha() or (digits is not None and len(digits[0]) < 6 and int(digits[0]) <= MAX_FACTORIAL)
