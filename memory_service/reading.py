"""Reading for one group: raw values against a memory, the sliding window, the reward in [0, 1].

    store.nearest -> Compared -> formula -> raw values, rounded -> window -> reward

Raw values are rounded to `raw_decimals` (1e-9): what is below comes from the order of summation, and a min-max without eps
would stretch it into reward. "off" is the published code: float32, its noise included. The two orders of
docs/algorithms.md are two methods of terms.Term; what a read means is here once.
"""

import numpy as np
from numpy.typing import NDArray

from memory_service.config import MemorySettings
from memory_service.episodes import EpisodeStore, union_of_responses
from memory_service.formulas import Compared, Formula
from memory_service.normaliser import SlidingMinMax


def exploit_rewards(
    settings: MemorySettings,
    formula: Formula,
    successes: EpisodeStore,
    window: SlidingMinMax,
    key_D: NDArray[np.float32],
    answers_ND: NDArray[np.float32],
    policy_version: int,
) -> NDArray[np.float64]:
    """[N] in [0, 1]: like past successes is good. 0, and nothing enters the window, without successes."""
    compared = _compare(settings, successes, key_D, answers_ND, policy_version)
    if compared is None:
        return np.zeros(len(answers_ND))
    raw_N = _raw(settings, formula, compared)
    if settings.exploit_form == "negative_distance":
        window.push(raw_N)
        scaled_N = window.scale(raw_N)
        return np.zeros(len(answers_ND)) if scaled_N is None else scaled_N
    distances_N = -raw_N
    window.push(distances_N)
    scaled_N = window.scale(distances_N)
    return np.clip(1.0 - (distances_N if scaled_N is None else scaled_N), 0.0, 1.0)


def explore_rewards(
    settings: MemorySettings,
    formula: Formula,
    failures: EpisodeStore,
    window: SlidingMinMax,
    key_D: NDArray[np.float32],
    answers_ND: NDArray[np.float32],
    policy_version: int,
) -> NDArray[np.float64]:
    """[N] in [0, 1]: unlike past failures is good. 0 in the warm-up; `explore_when_empty` without failures."""
    passed = policy_version if settings.warmup_unit == "steps" else len(failures)
    if not settings.uses_explore or passed < settings.warmup:
        return np.zeros(len(answers_ND))
    compared = _compare(settings, failures, key_D, answers_ND, policy_version)
    if compared is None:
        return np.full(len(answers_ND), settings.explore_when_empty)
    raw_N = _raw(settings, formula, compared)
    window.push(raw_N)
    scaled_N = window.scale(raw_N)
    return np.zeros(len(answers_ND)) if scaled_N is None else scaled_N


def _compare(
    settings: MemorySettings,
    store: EpisodeStore,
    key_D: NDArray[np.float32],
    answers_ND: NDArray[np.float32],
    policy_version: int,
) -> Compared | None:
    """None where there is nothing to compare: no answer, or no response known. Copies: a formula may write into them."""
    found = store.nearest(key_D, settings.neighbours_k)
    known_BD = union_of_responses(found)
    if known_BD is None or not len(answers_ND):
        return None
    dtype = np.float32 if settings.decimals is None else np.float64
    return Compared(
        answers_ND=answers_ND.astype(dtype),
        known_BD=known_BD.astype(dtype),
        question_B=np.repeat(np.arange(len(found)), [len(query.episodes) for query, _ in found]),
        cosine_Q=np.array([cosine for _, cosine in found]),
        policy_version=policy_version,
    )


def _raw(settings: MemorySettings, formula: Formula, compared: Compared) -> NDArray[np.float64]:
    raw_N: NDArray[np.float64] = formula(compared).astype(np.float64)
    return raw_N if settings.decimals is None else raw_N.round(settings.decimals)
