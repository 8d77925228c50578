"""Intrinsic rewards as formulas (docs/algorithms.md). Pure; float64 inside.

Raw values are rounded to `decimals` (1e-9): what is below comes from the order of summation, and a min-max without eps
would stretch it into reward. decimals None is the published code: float32, its noise included.

Shape letters: N rollouts of a group, B responses that a read united, D embedding dimensions.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating)


def distance_to_mean(
    answers_ND: NDArray[np.float32], successes_BD: NDArray[np.float32], decimals: int | None
) -> NDArray[np.float64]:
    """|a - c| with c the mean of the successes; exploit is its negative."""
    if decimals is None:
        noisy_N: NDArray[np.float64] = np.linalg.norm(answers_ND - successes_BD.mean(axis=0), axis=1).astype(np.float64)
        return noisy_N
    centre_D = successes_BD.astype(np.float64).mean(axis=0)
    distances_N: NDArray[np.float64] = np.linalg.norm(answers_ND.astype(np.float64) - centre_D, axis=1).round(decimals)
    return distances_N


def novelty(
    answers_ND: NDArray[np.float32], failures_BD: NDArray[np.float32], decimals: int | None
) -> NDArray[np.float64]:
    """explore: 1 - max cos(a, a_j) over the failures."""
    if decimals is None:
        nearest_N = (_unit(answers_ND) @ _unit(failures_BD).T).max(axis=1)
        noisy_N: NDArray[np.float64] = (1.0 - nearest_N).astype(np.float64)
        return noisy_N
    answers, failures = _unit(answers_ND.astype(np.float64)), _unit(failures_BD.astype(np.float64))
    novelty_N: NDArray[np.float64] = (1.0 - (answers @ failures.T).max(axis=1)).round(decimals)
    return novelty_N


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
