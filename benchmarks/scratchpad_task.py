"""A task of several steps for a tiny model: add three numbers column by column, in writing, then give the sum.

    What is 47 + 38 + 25?  ->  <think>
                               7+8+5=20
                               4+3+2+2=11
                               </think>
                               110

The last number alone is judged; the steps are what a memory can tell apart. (With the form think_answer the terms
themselves, 47+38+25, would be right: math-verify adds them up.) A user's task (task.kind =
"benchmarks.scratchpad_task:ScratchpadTask"): its world is a fixed draw from all problems, the same in every process.
"""

import random
from collections.abc import Callable, Iterator

from tasks.config import TaskSettings
from tasks.problem_list import Candidate, ProblemList, split_by_hash

KIND = "benchmarks.scratchpad_task:ScratchpadTask"
NUM_PROBLEMS = 8000
NUM_TERMS = 3

Slip = Callable[[], int]
"""What a step's sum is off by."""


class ScratchpadTask(ProblemList):
    """task.max_operand: largest term. Raises DataError where the settings leave no training problems."""

    def __init__(self, settings: TaskSettings) -> None:
        split = split_by_hash(list(_candidates(settings.max_operand)), settings.split_share, settings.worked_examples)
        super().__init__(split, settings, f"scratchpad up to {settings.max_operand}")


def worked(terms: tuple[int, ...], slip: Slip) -> tuple[str, int]:
    """The steps and the answer that they lead to: a line per decimal place from the right, digits, then the carry if there
    is one, then their sum, which is off by what `slip` gives. What follows is right given what was written."""
    lines, carry, answer = [], 0, 0
    width = max(len(str(term)) for term in terms)
    for place in range(width):
        parts = [term // 10**place % 10 for term in terms] + ([carry] if carry else [])
        total = abs(sum(parts) + slip())
        lines.append(f"{'+'.join(map(str, parts))}={total}")
        answer += (total if place == width - 1 else total % 10) * 10**place
        carry = total // 10
    return "\n".join(lines), answer


def terms_of(problem_id: str) -> tuple[int, ...]:
    """Of this task's problem ids, "scratchpad/47+38+25"."""
    return tuple(int(term) for term in problem_id.removeprefix("scratchpad/").split("+"))


def _candidates(max_operand: int) -> Iterator[Candidate]:
    """Distinct problems in a fixed random order; the world is whole where it has no more than NUM_PROBLEMS."""
    size = max_operand + 1
    chosen = random.Random("scratchpad").sample(range(size**NUM_TERMS), min(NUM_PROBLEMS, size**NUM_TERMS))
    for code in chosen:
        terms = tuple(code // size**place % size for place in range(NUM_TERMS))
        shown = " + ".join(map(str, terms))
        yield Candidate(
            problem_id=f"scratchpad/{'+'.join(map(str, terms))}",
            question=f"What is {shown}?",
            answer=str(sum(terms)),
            split_question=f"What is {' + '.join(map(str, sorted(terms)))}?",  # orders of one sum share a side
            reasoning=worked(terms, lambda: 0)[0],
        )
