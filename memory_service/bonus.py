"""Mixes the two intrinsic rewards of a group, capped or scaled, into the bonus that memory adds (docs/algorithms.md). Pure.

Shape letter: N rollouts of a group.
"""

import numpy as np
from numpy.typing import NDArray

from memory_service.config import MemorySettings
from memory_service.intrinsic import anneal, explore_decay, mix_bonus, scale_bonus


def mixed_bonus(
    settings: MemorySettings,
    exploit_N: NDArray[np.float64],
    explore_N: NDArray[np.float64],
    policy_version: int,
    value_of_correct: float,
) -> NDArray[np.float64]:
    """Rewards in [0, 1] to units of task reward. value_of_correct: what a right answer earns over a wrong one."""
    explore_weight = settings.explore_weight * explore_decay(policy_version, settings.explore_decay_steps)
    if settings.mix == "scaled":
        configured = (settings.exploit_weight, settings.explore_weight)
        largest = settings.cap_share * value_of_correct
        bonus_N = scale_bonus(exploit_N, explore_N, (settings.exploit_weight, explore_weight), configured, largest)
    else:
        cap = settings.cap_share if settings.mix == "capped" else None
        bonus_N = mix_bonus(exploit_N, explore_N, settings.exploit_weight, explore_weight, cap)
    return bonus_N * anneal(policy_version, settings.anneal_steps)
