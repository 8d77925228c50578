"""Rewards of one group to advantages. Pure; each function is one published estimator.

Shape letters: G trainable rollouts of one group (varies from group to group; untrainable ones are left out).

All of them give zeros where there is nothing to compare: fewer than two rollouts, or equal rewards. That is
decided by comparing the rewards, not by a small number, so rounding never makes a signal out of equal rewards.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from learner.config import Advantage

Estimator = Callable[[NDArray[np.float64]], NDArray[np.float64]]

GRPO_EPS = 1e-4


def grpo(rewards_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r - mean) / (std + 1e-4), std with G - 1 in the denominator.

    DeepSeekMath (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). The paper does not say which std; G - 1 is
    torch's default and what the field's trainers compute, as is the 1e-4.
    """
    if nothing_to_compare(rewards_G):
        return np.zeros_like(rewards_G)
    spread = float(rewards_G.std(ddof=1)) + GRPO_EPS
    return (rewards_G - float(rewards_G.mean())) / spread


def dr_grpo(rewards_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """r - mean: without the division that favours problems of little spread.

    "Understanding R1-Zero-Like Training" (Liu et al. 2025, arXiv 2503.20783, section 3.2); its other half, the
    constant normaliser, is `loss_normalisation = "constant"`.
    """
    if nothing_to_compare(rewards_G):
        return np.zeros_like(rewards_G)
    return rewards_G - float(rewards_G.mean())


def rloo(rewards_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """r_k minus the mean of the others; equal to G / (G - 1) x (r_k - mean).

    RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and LOOP (Chen et al. 2025, arXiv 2502.01600) share this form;
    neither divides by a std. It uses the group's own G, so groups that lost rollouts stay unbiased.
    """
    if nothing_to_compare(rewards_G):
        return np.zeros_like(rewards_G)
    num_others = len(rewards_G) - 1
    return rewards_G - (float(rewards_G.sum()) - rewards_G) / num_others


ESTIMATORS: dict[Advantage, Estimator] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo, "loop": rloo}


def nothing_to_compare(rewards_G: NDArray[np.float64]) -> bool:
    """Whether a group has fewer than two rewards, or equal ones: no advantage follows from it."""
    return len(rewards_G) < 2 or bool(np.all(rewards_G == rewards_G[0]))
