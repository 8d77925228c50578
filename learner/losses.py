"""Policy losses as weights on the score function. Pure; per token, and how tokens are weighed against each other.

Every policy loss of this file has the gradient  - w_t A_t d log pi(y_t)  with its own weight w_t, so it *is* its weight:

    clipped   w = r  inside the clip range, else 0        PPO (Schulman et al. 2017, arXiv 1707.06347, equation 7), with
                                                          the wider upper side of DAPO (arXiv 2503.14476, equation 10)
    cispo     w = min(r, 1 + clip_high), never 0          MiniMax-M1 (arXiv 2506.13585, section 3.1); no lower side
    gspo      as clipped, r the geometric mean over       GSPO (arXiv 2507.18071, equations 5 to 7), whole with the
              the rollout's policy tokens                 normalisation "rollouts": d r / d log pi(y_t) = r / |y|

with r = pi_now / pi_behaviour (importance.py). "Outside the clip range" is where PPO's min() picks its constant branch:
A > 0 and r > 1 + clip_high, or A < 0 and r < 1 - clip_low. At r = 1 all three are the plain on-policy policy gradient.

Shape letters: N policy tokens, R rollouts.
"""

import torch
from torch import Tensor

from learner.config import Loss


def token_weights(
    loss: Loss,
    log_ratio_N: Tensor,
    advantage_N: Tensor,
    row_N: Tensor,
    num_rows: int,
    clip_low: float,
    clip_high: float,
    cap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """weight_N, clipped_N and truncated_N (bool): the ratio after clipping and after the importance cap.

    log_ratio_N: log pi_now - log pi_behaviour, detached. cap: None leaves weights as they are.
    """
    if loss == "gspo":
        log_ratio_N = rollout_mean(log_ratio_N, row_N, num_rows)[row_N]
    ratio_N = log_ratio_N.exp()
    if loss == "cispo":
        clipped_N = ratio_N > 1 + clip_high
        weight_N = ratio_N.clamp(max=1 + clip_high)
    else:
        clipped_N = outside_clip_range(ratio_N, advantage_N, clip_low, clip_high)
        weight_N = ratio_N.masked_fill(clipped_N, 0.0)
    truncated_N = torch.zeros_like(clipped_N) if cap is None else ratio_N > cap
    return weight_N if cap is None else weight_N.clamp(max=cap), clipped_N, truncated_N


def outside_clip_range(ratio_N: Tensor, advantage_N: Tensor, clip_low: float, clip_high: float) -> Tensor:
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
    policy too, which is what turns k3's gradient round. cap: r is truncated there, as in `token_weights`.
    """
    weight_N = log_ratio_N.exp() if cap is None else log_ratio_N.exp().clamp(max=cap)
    gap_N = reference_N - logprob_N.detach()
    return weight_N * (gap_N.exp() - gap_N - 1 - gap_N * (logprob_N - logprob_N.detach()))
