"""Intrinsic rewards as formulas: distances, novelty, and their mix, capped or scaled (docs/algorithms.md). Pure.

Computed in the data type of their inputs.

Shape letters: N rollouts of a group, B responses that a read united, D embedding dimensions.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating)

KNN_ENTROPY_K = 3
"""As in the paper."""


def distance_to_mean(answers_ND: NDArray[_Float], successes_BD: NDArray[_Float]) -> NDArray[_Float]:
    """|a - c| with c the mean of the successes; exploit is its negative."""
    distances_N: NDArray[_Float] = np.linalg.norm(answers_ND - successes_BD.mean(axis=0), axis=1)
    return distances_N


def novelty(answers_ND: NDArray[_Float], failures_BD: NDArray[_Float]) -> NDArray[_Float]:
    """explore: 1 - max cos(a, a_j) over the failures."""
    novelty_N: NDArray[_Float] = 1 - (_unit(answers_ND) @ _unit(failures_BD).T).max(axis=1)
    return novelty_N


def knn_entropy(answers_ND: NDArray[_Float], failures_BD: NDArray[_Float], k: int = KNN_ENTROPY_K) -> NDArray[_Float]:
    """log(1 + |a - a_k|), a_k the k-th nearest failure, the farthest of them where there are fewer.

    RE3 (Seo et al. 2021, arXiv 2102.09430, section 4), whose neighbours are the states of a replay buffer under a fixed
    encoder: the reward that a k-nearest-neighbour estimate of the entropy of what is visited comes to.
    """
    kth = min(k, len(failures_BD)) - 1
    distances_NB = np.stack([np.linalg.norm(failures_BD - answer_D, axis=1) for answer_D in answers_ND])
    entropy_N: NDArray[_Float] = np.log1p(np.partition(distances_NB, kth, axis=1)[:, kth])
    return entropy_N


def explore_decay(policy_version: int, decay_steps: float | None) -> float:
    """d / (d + t), the form of i-MENTOR (arXiv 2505.17621); 1 without decay."""
    return 1.0 if decay_steps is None else decay_steps / (decay_steps + policy_version)


def anneal(policy_version: int, anneal_steps: float | None) -> float:
    """Linear from 1 to 0 over `anneal_steps` policy versions; 1 without annealing."""
    return 1.0 if anneal_steps is None else max(0.0, 1.0 - policy_version / anneal_steps)


def mix_bonus(
    exploit_N: NDArray[np.float64],
    explore_N: NDArray[np.float64],
    exploit_weight: float,
    explore_weight: float,
    cap: float | None,
) -> NDArray[np.float64]:
    """beta_s exploit + beta_e explore, at most `cap`."""
    bonus_N = exploit_weight * exploit_N + explore_weight * explore_N
    return bonus_N if cap is None else np.minimum(bonus_N, cap)


def scale_bonus(
    exploit_N: NDArray[np.float64],
    explore_N: NDArray[np.float64],
    weights: tuple[float, float],
    configured: tuple[float, float],
    largest: float,
) -> NDArray[np.float64]:
    """largest x (b_s exploit + b_x explore) / (B_s + B_x): in [0, largest], every difference kept.

    weights: b_s, b_x as they act now, decay applied. configured: B_s, B_x as they were set; dividing by these and not by
    `weights` lets a decay, a warm-up and exploit alone give a smaller bonus, as they say.
    """
    total = sum(configured)
    if total == 0:
        return np.zeros_like(exploit_N)
    bonus_N: NDArray[np.float64] = largest * (weights[0] * exploit_N + weights[1] * explore_N) / total
    return bonus_N


def _unit(vectors: NDArray[_Float]) -> NDArray[_Float]:
    unit: NDArray[_Float] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
