"""Policy losses as weights on the score function. Pure; per token, and how tokens are weighed against each other.

Every policy loss of this file has the gradient  - w_t A_t d log pi(y_t)  with its own weight w_t, so it *is* its weight, and one function of `LOSSES`:

    clipped   w = r  inside the clip range, else 0        PPO (Schulman et al. 2017, arXiv 1707.06347, equation 7), with
                                                          the wider upper side of DAPO (arXiv 2503.14476, equation 10)
    cispo     w = min(r, 1 + clip_high), never 0          MiniMax-M1 (arXiv 2506.13585, section 3.1); no lower side
    gspo      as clipped, r the geometric mean over       GSPO (arXiv 2507.18071, equations 5 to 7), whole with the
              the rollout's policy tokens                 normalisation "rollouts": d r / d log pi(y_t) = r / |y|

with r = pi_now / pi_behaviour (importance.py). "Outside the clip range" is where PPO's min() picks its constant branch:
A > 0 and r > 1 + clip_high, or A < 0 and r < 1 - clip_low. At r = 1 all three are the plain on-policy policy gradient.

Shape letters: N policy tokens, R rollouts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from contracts.errors import ConfigError
from learner.config import Loss
from loading.dotted_path import is_dotted, load_dotted
from loading.users_code import call_or_stop


@dataclass(frozen=True, slots=True, eq=False)
class PolicyTokens:
    """Policy tokens of one micro-batch.

    log_ratio_N: log pi_now - log pi_behaviour, detached. row_N: the rollout that each token belongs to, below num_rows.
    """

    log_ratio_N: Tensor
    advantage_N: Tensor
    row_N: Tensor
    num_rows: int


@dataclass(frozen=True, slots=True)
class RatioLimits:
    """How far the ratio may go. cap: of the weight, whatever the loss leaves (importance.py); None: no cap."""

    clip_low: float
    clip_high: float
    cap: float | None = None


class TokenWeights(NamedTuple):
    """What a loss is: w_t of each token. clipped_N, truncated_N (bool): the clip range acted, the importance cap acted."""

    weight_N: Tensor
    clipped_N: Tensor
    truncated_N: Tensor


def clipped(tokens: PolicyTokens, limits: RatioLimits) -> TokenWeights:
    """PPO's weight, per token: the ratio inside the clip range, else 0."""
    return _silent_outside(tokens.log_ratio_N.exp(), tokens.advantage_N, limits)


def gspo(tokens: PolicyTokens, limits: RatioLimits) -> TokenWeights:
    """As `clipped`, with one ratio per rollout: the geometric mean over its policy tokens."""
    log_ratio_R = rollout_mean(tokens.log_ratio_N, tokens.row_N, tokens.num_rows)
    return _silent_outside(log_ratio_R[tokens.row_N].exp(), tokens.advantage_N, limits)


def cispo(tokens: PolicyTokens, limits: RatioLimits) -> TokenWeights:
    """The ratio up to 1 + clip_high: no token is silent."""
    ratio_N = tokens.log_ratio_N.exp()
    return _capped(ratio_N, ratio_N.clamp(max=1 + limits.clip_high), ratio_N > 1 + limits.clip_high, limits.cap)


LOSSES: dict[Loss, Callable[[PolicyTokens, RatioLimits], TokenWeights]] = {
    "clipped": clipped,
    "cispo": cispo,
    "gspo": gspo,
}


@cache
def loss_of(name: str) -> Callable[[PolicyTokens, RatioLimits], TokenWeights]:
    """An entry of `LOSSES`, or a function of the user's. Raises ConfigError where that is not there."""
    if not is_dotted(name):
        return LOSSES[name]  # type: ignore[index]
    function = load_dotted(name, "learner.loss")

    def checked(tokens: PolicyTokens, limits: RatioLimits) -> TokenWeights:
        found = call_or_stop(f"learner.loss '{name}'", function, tokens, limits)
        shape = tokens.advantage_N.shape
        if not isinstance(found, TokenWeights) or any(part.shape != shape for part in found):
            raise ConfigError(
                f"learner.loss '{name}' returned {type(found).__name__}; it must return "
                f"learner.losses.TokenWeights(weight_N, clipped_N, truncated_N) with {shape[0]} entries each"
            )
        return found

    return checked


def _silent_outside(ratio_N: Tensor, advantage_N: Tensor, limits: RatioLimits) -> TokenWeights:
    clipped_N = outside_clip_range(ratio_N, advantage_N, limits.clip_low, limits.clip_high)
    return _capped(ratio_N, ratio_N.masked_fill(clipped_N, 0.0), clipped_N, limits.cap)


def _capped(ratio_N: Tensor, weight_N: Tensor, clipped_N: Tensor, cap: float | None) -> TokenWeights:
    if cap is None:
        return TokenWeights(weight_N, clipped_N, torch.zeros_like(clipped_N))
    return TokenWeights(weight_N.clamp(max=cap), clipped_N, ratio_N > cap)


def outside_clip_range(ratio_N: Tensor, advantage_N: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Returns [N] bool: tokens whose ratio left the clip range in the direction of their advantage (PPO, arXiv
    1707.06347, eq. 7)."""
    rises_too_far_N = (advantage_N > 0) & (ratio_N > 1 + clip_high)
    falls_too_far_N = (advantage_N < 0) & (ratio_N < 1 - clip_low)
    return rises_too_far_N | falls_too_far_N


def rollout_mean(values_N: Tensor, row_N: Tensor, num_rows: int) -> Tensor:
    """[R], the mean over each rollout's policy tokens."""
    sums_R = values_N.new_zeros(num_rows).index_add_(0, row_N, values_N)
    counts_R = values_N.new_zeros(num_rows).index_add_(0, row_N, torch.ones_like(values_N))
    return sums_R / counts_R


def policy_loss(logprob_N: Tensor, weight_N: Tensor, advantage_N: Tensor) -> Tensor:
    """- w A, with the gradient - w A d log pi. The weight is a number, not a function of the policy."""
    one_N = 1 + logprob_N - logprob_N.detach()
    return -(weight_N * advantage_N) * one_N


def token_shares(row_N: Tensor, num_rows: int) -> Tensor:
    """[N] float32, 1 / (policy tokens of the token's rollout): summed over a rollout, its mean."""
    counts_R = torch.bincount(row_N, minlength=num_rows)
    return counts_R.float().reciprocal()[row_N]


def k3(logprob_N: Tensor, reference_N: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = log pi_ref - log pi: >= 0, unbiased for KL(pi || pi_ref) on samples of pi.

    Schulman 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.html. As a loss (GRPO's equation 4) its gradient
    is (1 - pi_ref / pi) d log pi: on samples of pi that of KL(pi_ref || pi), the other direction.
    """
    gap_N = reference_N - logprob_N
    return gap_N.exp() - gap_N - 1


def weighted_k3(logprob_N: Tensor, reference_N: Tensor, log_ratio_N: Tensor, cap: float | None) -> Tensor:
    """r x k3, whose gradient  r (log pi - log pi_ref) d log pi  is that of KL(pi || pi_ref) on samples of pi_behaviour.

    DeepSeek-V3.2 (arXiv 2512.02556, section 3.1). log_ratio_N: log pi - log pi_behaviour, detached; r is a function of the
    policy too, which is what turns k3's gradient round. cap: r is truncated there, as a policy weight is.
    """
    weight_N = log_ratio_N.exp() if cap is None else log_ratio_N.exp().clamp(max=cap)
    gap_N = reference_N - logprob_N.detach()
    return weight_N * (gap_N.exp() - gap_N - 1 - gap_N * (logprob_N - logprob_N.detach()))
