"""Which distribution sampled the tokens, and what that does to the gradient. Pure.

One update per batch, so there are two policies, not three: pi_now, whose log-probs this update's forward computes, and
pi_behaviour, the engine at the version that sampled. Their ratio

    r_t = exp(log pi_now(y_t) - log pi_behaviour(y_t))

holds everything that separates them: `lag` updates, and the numeric gap between learner and engine. It enters the policy's loss once:

    gradient = - min(clip(r_t), importance_cap) A_t d log pi_now(y_t)

- clip: where the update would push a probability further from the behaviour policy than the range, the token is silent
  (losses.py). A clipped loss is what keeps stale groups trainable (AReaL, arXiv 2505.24298, section 5.2). AReaL's
  decoupled objective has a third, proximal policy for several minibatches per batch; with one, proximal and current
  policy coincide, its clip would never act and its first factor is this same r_t.
- importance_cap: what remains is truncated importance sampling (Ionides 2008; Espeholt et al. 2018, arXiv 1802.01561,
  for policy gradients): bounded variance for a little bias. It acts where clipping does not, above all on A < 0 and r
  large, which PPO leaves unbounded.

The KL term has the same r_t, cut at the same cap (losses.py, `weighted_k3`).

At lag 0 with equal numbers r_t = 1 everywhere, and the gradient is the plain on-policy policy gradient.

Shape letters: N policy tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mismatch:
    """|log p learner - log p engine| over tokens. at_lag_0: whether it is numeric gap alone, without any update."""

    mean: float
    p99: float
    max: float
    at_lag_0: bool


def mismatch(
    learner_logprob_N: NDArray[np.float32], engine_logprob_N: NDArray[np.float32], lag_N: NDArray[np.int64]
) -> Mismatch:
    """Over the tokens of lag 0 if there are any, because only there should the two agree; else over all tokens."""
    gap_N = np.abs(learner_logprob_N.astype(np.float64) - engine_logprob_N)
    fresh_N = lag_N == 0
    at_lag_0 = bool(fresh_N.any())
    chosen = gap_N[fresh_N] if at_lag_0 else gap_N
    if not len(chosen):
        return Mismatch(0.0, 0.0, 0.0, at_lag_0=False)
    return Mismatch(float(chosen.mean()), float(np.quantile(chosen, 0.99)), float(chosen.max()), at_lag_0)
