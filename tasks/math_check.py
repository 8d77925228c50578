"""Whether two answers are mathematically equal: the exact fast path, then `math-verify` (a computer algebra system).

Runs in a verifier's child process: sympy may take seconds or for ever over a tower of powers. math-verify's own
time limits use SIGALRM, which works in main threads only; they are off here, the child's deadline holds instead.
"""

import re

from tasks.answers import BOX, compare

_PLAIN_NAMES = re.compile(r"(?<![\\A-Za-z])(pi|infty|sin|cos|tan|log|ln)(?![A-Za-z])")


def is_equal(answer: str, reference: str) -> bool:
    """Raises ValueError where the reference itself cannot be read: then no answer can be judged."""
    decided = compare(answer, reference)
    return decided if decided is not None else _algebraically_equal(answer, reference)


def _algebraically_equal(answer: str, reference: str) -> bool:
    from math_verify import parse, verify

    expected = parse(_boxed(reference), parsing_timeout=None, raise_on_error=True)
    if not expected:
        raise ValueError(f"math-verify cannot read the reference answer {reference!r}: mend it or set task.scorer")
    given = parse(_boxed(answer), parsing_timeout=None)
    return bool(verify(expected, given, timeout_seconds=None, raise_on_error=True)) if given else False


def _boxed(text: str) -> str:
    """One box, which math-verify reads first; a box inside a box would be read as a set. Names that plain text
    writes without a backslash get theirs: `pi` alone would be read as p times i."""
    latex = _PLAIN_NAMES.sub(r"\\\1", text)
    return latex if latex.startswith(BOX) else f"{BOX}{latex}}}"
