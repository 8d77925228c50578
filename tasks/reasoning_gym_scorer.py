"""reasoning_gym's own scoring of an answer, on the entry that the problem carries.

Right means a full score: the generators give partial credit for near misses. Some scorers cannot be used as they
stand; three tables name them with the reason. docs/answers.md has the table over all generators.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from contracts.ports import Answer
from tasks.answer_bounds import powers_are_small
from tasks.arithmetic_value import arithmetic_value
from tasks.numerals import Number
from tasks.numerals_in_text import find_numerals
from tasks.plain_writing import as_words
from tasks.reasoning_gym_child import create_dataset
from tasks.reasoning_gym_entries import BLOCK, STREAM, Generator, carried_entry

__all__ = [
    "BLOCK",
    "SCORED_BY_TEXT",
    "SCORED_EXACTLY_TOO",
    "SCORED_ON_ITS_NUMBERS",
    "STREAM",
    "Generator",
    "reasoning_gym_check",
]

_NO_NUMBER = re.compile(r"\b(?:nan|inf|infinity)\b", re.IGNORECASE)
"""min(1.0, nan) is 1.0: complex_arithmetic gave "nan" a full score."""

SCORED_BY_TEXT = {
    "game_of_life_halting": "its scorer compares bool('False') with bool('True'), which are equal: any text is right",
}
"""Generators whose answers are compared with the reference as text, upper case and spaces aside."""

SCORED_EXACTLY_TOO = {
    "coin_flip": "its scorer gives the share of leading characters that agree: 0 is right for 0.3125",
    "number_sorting": "its scorer takes numbers that are off by 1 for the same",
}
"""Generators whose full score counts only where the answer's numbers are exactly the reference's."""

SCORED_ON_ITS_NUMBERS = {
    "puzzle24": "its scorer never looks whether the four numbers are those of the puzzle, and cuts 24.9 to 24",
}
"""Generators whose full score counts only for arithmetic with exactly the given numbers that is exactly 24."""


def reasoning_gym_check(name: str, params: Mapping[str, Any]) -> Callable[[Answer, str | None], bool]:
    """Raises ConfigError for a wrong name or wrong parameters.

    An answer over which the generator's scorer raises is wrong. The check itself raises where that scorer cannot
    score the entry's own answer either.
    """
    dataset = create_dataset(name, params, seed=0, size=1)

    def check(answer: Answer, final: str | None) -> bool:
        if final is None:
            return False
        if name in SCORED_BY_TEXT:
            return final.casefold().split() == answer.problem.answer.casefold().split()
        entry = carried_entry(answer.problem) or _made_again(name, params, answer.problem.metadata)
        unlike = final != answer.problem.answer
        if unlike and (_NO_NUMBER.search(final) or not powers_are_small(final)):  # scorers compute with what they get
            return False
        if name in SCORED_EXACTLY_TOO and _numbers(final) != _numbers(answer.problem.answer):
            return False
        if name in SCORED_ON_ITS_NUMBERS and not _makes_24(final, entry["metadata"]["numbers"]):
            return False
        try:
            return float(dataset.score_answer(final, entry)) >= 1.0
        except Exception:  # noqa: BLE001  generators read answers as if they were well formed
            dataset.score_answer(entry["answer"], entry)
            return False

    return check


def _makes_24(expression: str, given: list[int]) -> bool:
    used = sorted(int(number) for number in re.findall(r"\d{1,9}", expression))
    return used == sorted(given) and arithmetic_value(expression) == 24


def _numbers(text: str) -> list[Number | None]:
    return [numeral.number for numeral in find_numerals(as_words(text))]


def _made_again(name: str, params: Mapping[str, Any], metadata: str) -> dict[str, Any]:
    """The entry of a problem that does not carry it: a run of an older commit."""
    where, generator = json.loads(metadata), Generator(name, params)
    try:
        return generator.entry(where["stream"], where["index"])
    finally:
        generator.close()
