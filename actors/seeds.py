"""Seeds and random streams of rollouts: the same lease gives the same rollouts.

A rollout's randomness is a counter-based stream (Philox, Salmon et al. 2011) keyed by its own seed; uniform
number i decides token i. What else is in the batch changes nothing. Loads without torch.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def rollout_seed(run_seed: int, problem_id: str, lease_id: int, sample_index: int, attempt: int) -> int:
    """A 63-bit seed from what identifies a rollout."""
    return _hash63(f"{run_seed}\n{lease_id}\n{sample_index}\n{attempt}\n{problem_id}")


def turn_seed(seed: int, turn: int) -> int:
    """The seed of one turn of a rollout; turn 0 is the rollout's own seed."""
    return seed if turn == 0 else _hash63(f"{seed}\nturn {turn}")


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """The first `count` numbers in [0, 1) of the seed's stream."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def _hash63(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
