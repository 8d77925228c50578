"""Additions and subtractions of small whole numbers: finite, tiny, and learnable by a model of 0.1B parameters.

With operands up to 20 there are 441 sums and 231 differences (none negative): 672 distinct problems. 7 + 12 and
12 + 7 are two problems, but they fall on the same side of the split, so no held-out sum is known from its twin.
"""

from collections.abc import Iterator

from tasks.config import TaskSettings
from tasks.problem_list import Candidate, ProblemList, split_by_hash


def arithmetic_task(settings: TaskSettings) -> ProblemList:
    """Raises DataError where the settings leave no training problems."""
    candidates = list(_candidates(settings))
    split = split_by_hash(candidates, settings.split_share, settings.worked_examples)
    return ProblemList(split, settings, f"arithmetic up to {settings.max_operand}")


def _candidates(settings: TaskSettings) -> Iterator[Candidate]:
    operands = range(settings.max_operand + 1)
    for operation in sorted(set(settings.operations)):
        for a in operands:
            for b in operands:
                if operation == "+":
                    yield _candidate(a, "+", b, a + b)
                elif a >= b:
                    yield _candidate(a, "-", b, a - b)


def _candidate(a: int, operation: str, b: int, result: int) -> Candidate:
    low, high = (min(a, b), max(a, b)) if operation == "+" else (a, b)
    expression = f"{a} {operation} {b}"
    return Candidate(
        problem_id=f"arithmetic/{a}{operation}{b}",
        question=f"What is {expression}?",
        answer=str(result),
        split_question=f"What is {low} {operation} {high}?",
        reasoning=f"{expression} = {result}",
    )
