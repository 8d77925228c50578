"""The formulas that `[memory]` names: an entry of a table, or a function of the user's as `FILE.py:name`.

    memory.exploit_formula   Compared, with successes -> values_N      EXPLOIT_FORMULAS
    memory.explore_formula   Compared, with failures  -> values_N      EXPLORE_FORMULAS

Higher is better. Whatever the formula, its values are rounded, enter the term's window and are scaled by it to [0, 1]
(reading.py). A user's function is called for what there is to compare alone, and what it returns is checked.

Shape letters: N rollouts of a group, Q nearest questions, B responses given to them, D embedding dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ConfigError
from loading.dotted_path import is_dotted, load_dotted
from loading.users_code import MAX_NUMBER, call_or_stop, refused
from memory_service.config import ExploitFormula, ExploreFormula, MemorySettings
from memory_service.intrinsic import distance_to_mean, knn_entropy, novelty


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The answers of one group beside what a term's store holds of the nearest questions.

    answers_ND, known_BD: embeddings of length 1, float64 (float32 with memory.raw_decimals = "off"); N and B are 1 or more.
    known_BD: responses to the nearest question first, of each question the oldest first. question_B: the question of each
    response, 0 for the nearest. cosine_Q: of each nearest question with the group's, memory.neighbours_k of them at most.
    policy_version: that sampled the group.
    """

    answers_ND: NDArray[Any]
    known_BD: NDArray[Any]
    question_B: NDArray[np.int64]
    cosine_Q: NDArray[np.float64]
    policy_version: int


Formula = Callable[[Compared], NDArray[Any]]


def _near_the_mean(compared: Compared) -> NDArray[Any]:
    return -distance_to_mean(compared.answers_ND, compared.known_BD)


def _unlike_the_nearest(compared: Compared) -> NDArray[Any]:
    return novelty(compared.answers_ND, compared.known_BD)


def _far_from_the_kth(compared: Compared) -> NDArray[Any]:
    return knn_entropy(compared.answers_ND, compared.known_BD)


EXPLOIT_FORMULAS: Mapping[ExploitFormula, Formula] = {"distance_to_mean": _near_the_mean}
EXPLORE_FORMULAS: Mapping[ExploreFormula, Formula] = {
    "nearest_cosine": _unlike_the_nearest,
    "knn_entropy": _far_from_the_kth,
}


def exploit_formula(settings: MemorySettings) -> Formula:
    """Raises ConfigError where the user's function is not there."""
    return _formula(EXPLOIT_FORMULAS, settings.exploit_formula, "memory.exploit_formula")


def explore_formula(settings: MemorySettings) -> Formula:
    """Raises ConfigError where the user's function is not there."""
    return _formula(EXPLORE_FORMULAS, settings.explore_formula, "memory.explore_formula")


def refuse_missing(settings: MemorySettings) -> None:
    """Raises ConfigError for a user's formula that is not there."""
    exploit_formula(settings)
    explore_formula(settings)


def _formula(table: Mapping[Any, Formula], name: str, setting: str) -> Formula:
    return _users_formula(name, setting) if is_dotted(name) else table[name]


@cache
def _users_formula(name: str, setting: str) -> Formula:
    function, what = load_dotted(name, setting), f"{setting} '{name}'"

    def checked(compared: Compared) -> NDArray[np.float64]:
        found, wanted = call_or_stop(what, function, compared), len(compared.answers_ND)
        values_N = _numbers(found)
        if values_N is None or values_N.shape != (wanted,) or not (np.abs(values_N) <= MAX_NUMBER).all():
            expected = f"{wanted} finite numbers, one for each answer, at most {MAX_NUMBER:g} in size"
            raise ConfigError(str(refused(what, function, found, expected)))
        return values_N

    return checked


def _numbers(found: Any) -> NDArray[np.float64] | None:
    try:
        return np.asarray(found, np.float64)
    except (TypeError, ValueError):
        return None
