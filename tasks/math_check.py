"""Whether two answers are mathematically equal: `tasks.compare_answers`, then `math-verify` (a computer algebra system).

    compare -> decided | None -> bounds on the text -> parse both -> math-verify, its tolerances made exact

Runs in a verifier's child process. math-verify's own time limits use SIGALRM, which works in main threads only; they
are off here, the bounds of `tasks.answer_bounds` and the child's deadline hold instead. Whatever the answer makes go
wrong is a wrong answer; only a reference that cannot be read is an error.
"""

import re
from functools import lru_cache
from typing import Any

from tasks.answer_bounds import claims_something_else, is_affordable
from tasks.compare_answers import compare, reference_number
from tasks.cpu_limit import OutOfTimeError, cpu_limit
from tasks.exact_equality import as_rational, equal_values, exact, use_exact_equality
from tasks.plain_writing import as_latex, last_boxed, without_markdown
from tasks.stated_number import quantity

_ONE_OF_EACH = (
    ("x + 1", "1 + x"),
    (r"\frac{\sqrt{3}}{2}", r"\frac{\pi}{2}"),
    ("(2, 3)", "(1, 2)"),
    (r"\{1, 3\}", r"\{1, 2\}"),
    (r"x \le 3", r"x \le 2"),
    (r"[0, 1) \cup (2, 3]", r"[0, 1) \cup (2, 4]"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
    (r"1 \pm \sin x", r"1 \pm \cos x"),
)
MAX_SIDES = 4
MAX_CPU_S = 2.0
"""Of one answer, behind the bounds on its text. At 0.5 a busy machine called a right answer of Math-Verify's own tests wrong."""

_PLAIN_NAMES = re.compile(r"(?<![\\A-Za-z])(pi|infty|sin|cos|tan|log|ln)(?![A-Za-z])")
_UPRIGHT_LETTER = re.compile(r"\\(?:mathrm|text|mathit|rm)\s*\{\s*([A-Za-z])\s*\}")
_CODE_POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*(?=[\w({\\-])")
"""x**2, as programs write powers."""
_EQUALS = re.compile(r"(?<![<>!=\\:])=(?!=)")


def is_equal(answer: str, reference: str) -> bool:
    """Raises ValueError where the reference itself cannot be read: then no answer can be judged."""
    decided = compare(answer, reference)
    return decided if decided is not None else _algebraically_equal(_latex(answer), _latex(reference))


def warm_up() -> None:
    """Loads the algebra system and the parser's tables, about a second, before any answer's clock runs."""
    for answer, reference in _ONE_OF_EACH:
        is_equal(answer, reference)


def _algebraically_equal(answer: str, reference: str) -> bool:
    expected = _parsed_reference(reference)
    if not is_affordable(answer, reference) or claims_something_else(answer, reference):
        return False
    try:
        with cpu_limit(MAX_CPU_S):
            return _sides_are_equal(answer, reference, expected)
    except (Exception, OutOfTimeError):  # noqa: BLE001  the reference was read: whatever goes wrong is the answer's
        return False


def _sides_are_equal(answer: str, reference: str, expected: Any) -> bool:
    r"""Whether every side but the name is right, as in "x = 2 = \sqrt{4}"."""
    sides = _EQUALS.split(answer)
    if len(sides) <= 1 + len(_EQUALS.findall(reference)) + ("=" not in reference) or re.search(
        r"[,;]|\\text|\bor\b|\band\b", answer
    ):
        return _is_same(answer, reference, expected)
    return len(sides) <= MAX_SIDES and all(_is_same(side, reference, expected) for side in sides[1:])


def _is_same(answer: str, reference: str, expected: Any) -> bool:
    from math_verify import parse, verify

    number = quantity(answer)
    if number is not None and (not number.comma or getattr(expected[0], "is_number", False)):  # "3,5" may be a list
        return number.lowest and equal_values(as_rational(number.value), exact(expected[0]))
    given = parse(_boxed(answer), parsing_timeout=None)
    if not given:
        return False
    if reference_number(reference) is not None:  # a decimal, for which only an irrational value may stand
        return getattr(given[0], "is_rational", None) is False and equal_values(exact(expected[0]), exact(given[0]))
    return bool(
        verify(
            [exact(one) for one in expected], [exact(one) for one in given], timeout_seconds=None, raise_on_error=True
        )
    )


@lru_cache(maxsize=64)
def _parsed_reference(reference: str) -> Any:
    """Raises ValueError for what math-verify cannot read, or cannot compare with itself."""
    from math_verify import parse, verify

    use_exact_equality()
    if not is_affordable(reference, reference):
        raise ValueError(f"the reference answer {reference!r} is too large to compute with: mend it or set task.scorer")
    try:
        expected = parse(_boxed(reference), parsing_timeout=None, raise_on_error=True)
        readable = bool(expected) and verify(expected, expected, timeout_seconds=None, raise_on_error=True)
    except Exception as error:
        raise ValueError(
            f"math-verify cannot read the reference answer {reference!r} ({error}): mend it or set task.scorer"
        ) from error
    if not readable:
        raise ValueError(f"math-verify cannot read the reference answer {reference!r}: mend it or set task.scorer")
    return expected


def _latex(text: str) -> str:
    plain = without_markdown(as_latex(last_boxed(text) or text))
    return _UPRIGHT_LETTER.sub(r" \1 ", _CODE_POWER.sub("^", plain)).strip()


def _boxed(text: str) -> str:
    """One box, which math-verify reads first; a box inside a box would be read as a set. Names that plain text
    writes without a backslash get theirs: `pi` alone would be read as p times i."""
    return f"\\boxed{{{_PLAIN_NAMES.sub(_with_backslash, text)}}}"


def _with_backslash(match: re.Match[str]) -> str:
    return f"\\{match[1]} "
