"""Reading for one group: raw values against a memory, the sliding window, the reward in [0, 1].

The two orders of docs/algorithms.md are two methods of terms.Term; what a read means is here once.
"""

import numpy as np
from numpy.typing import NDArray

from memory_service.config import MemorySettings
from memory_service.episodes import EpisodeStore, union_of_responses
from memory_service.intrinsic import distance_to_mean, novelty
from memory_service.normaliser import SlidingMinMax


def exploit_rewards(
    settings: MemorySettings,
    successes: EpisodeStore,
    window: SlidingMinMax,
    key_D: NDArray[np.float32],
    answers_ND: NDArray[np.float32],
    policy_version: int,  # noqa: ARG001  every formula is asked alike
) -> NDArray[np.float64]:
    """[N] in [0, 1]: near the mean of past successes is good. 0, and nothing enters the window, without successes."""
    known_BD = union_of_responses(successes.nearest(key_D, settings.neighbours_k))
    if known_BD is None:
        return np.zeros(len(answers_ND))
    distances_N = distance_to_mean(answers_ND, known_BD, settings.decimals)
    if settings.exploit_form == "negative_distance":
        window.push(-distances_N)
        scaled_N = window.scale(-distances_N)
        return np.zeros(len(answers_ND)) if scaled_N is None else scaled_N
    window.push(distances_N)
    scaled_N = window.scale(distances_N)
    return np.clip(1.0 - (distances_N if scaled_N is None else scaled_N), 0.0, 1.0)


def explore_rewards(
    settings: MemorySettings,
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
    known_BD = union_of_responses(failures.nearest(key_D, settings.neighbours_k))
    if known_BD is None:
        return np.full(len(answers_ND), settings.explore_when_empty)
    novelty_N = novelty(answers_ND, known_BD, settings.decimals)
    window.push(novelty_N)
    scaled_N = window.scale(novelty_N)
    return np.zeros(len(answers_ND)) if scaled_N is None else scaled_N
