"""Intrinsic rewards as formulas (docs/algorithms.md). Pure; float64 inside.

Raw values are rounded to 1e-9: what is below comes from the order of summation, and a min-max without eps would
stretch it into reward.

Shape letters: N rollouts of a group, B responses that a read united, D embedding dimensions.
"""

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 9


def distance_to_mean(answers_ND: NDArray[np.float32], successes_BD: NDArray[np.float32]) -> NDArray[np.float64]:
    """|a - c| with c the mean of the successes; exploit is its negative."""
    centre_D = successes_BD.astype(np.float64).mean(axis=0)
    distances_N: NDArray[np.float64] = np.linalg.norm(answers_ND.astype(np.float64) - centre_D, axis=1).round(_DECIMALS)
    return distances_N


def novelty(answers_ND: NDArray[np.float32], failures_BD: NDArray[np.float32]) -> NDArray[np.float64]:
    """explore: 1 - max cos(a, a_j) over the failures."""
    answers, failures = _unit(answers_ND), _unit(failures_BD)
    novelty_N: NDArray[np.float64] = (1.0 - (answers @ failures.T).max(axis=1)).round(_DECIMALS)
    return novelty_N


def explore_decay(policy_version: int, decay_steps: float | None) -> float:
    """d / (d + t), the form of i-MENTOR (arXiv 2505.17621); 1 without decay."""
    return 1.0 if decay_steps is None else decay_steps / (decay_steps + policy_version)


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


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
