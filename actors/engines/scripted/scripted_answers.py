"""Where the scripted engine's right answers come from: it reads the question like anybody else."""

import re
from collections.abc import Callable

# The right answer to a decoded prompt, or None when the script cannot read the question.
AnswerScript = Callable[[str], str | None]

_OPERATION = re.compile(r"(-?\d+)\s*([+\-*])\s*(-?\d+)")
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def arithmetic_answer(prompt: str) -> str | None:
    """The value of the last "a + b", "a - b" or "a * b" in the prompt (worked examples come before it)."""
    operations = _OPERATION.findall(prompt)
    if not operations:
        return None
    left, operator, right = operations[-1]
    return str(_OPERATORS[operator](int(left), int(right)))


def wrong_answer(right: str | None, draw: float) -> str:
    """A number that is not the answer; `draw` in [0, 1) picks which."""
    offset = 1 + int(draw * 9)
    return str(int(right) + offset) if right is not None and re.fullmatch(r"-?\d+", right) else f"{offset}"
