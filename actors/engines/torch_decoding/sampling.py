"""From next-token logits to sampled tokens and their exact log-probs, one uniform number per row.

Inverse-CDF sampling: the token is where the cumulative probability passes the uniform number. The search goes
first over sums of blocks of the vocabulary, then inside one block, so no cumulative sum over the whole
vocabulary is built. Block sums are float32, what is searched is float64.

Shape letters: R rows, V vocabulary, K blocks, B entries of a block.
Simplified: no top-p, top-k or min-p; the log-prob is that of the distribution sampled from.
"""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256


def sample_tokens(
    logits_RV: Tensor, uniforms_R: Tensor, temperatures_R: Tensor, work_RV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample one token per row; a row of temperature 0 is greedy, with its log-prob at temperature 1.

    uniforms_R: float64 in [0, 1). temperatures_R: float32. work_RV: float32 scratch of the logits' shape,
    overwritten (a fresh allocation of 12 MB per step costs more than the arithmetic on it).
    Returns tokens_R int64 and logprobs_R float32; non-finite logits give non-finite log-probs.
    """
    scaled_RV = torch.empty_like(logits_RV, dtype=torch.float32) if work_RV is None else work_RV
    scaled_RV.copy_(logits_RV)
    greedy_R = temperatures_R == 0
    scaled_RV.div_(torch.where(greedy_R, torch.ones_like(temperatures_R), temperatures_R)[:, None])
    peak_R1, best_R1 = scaled_RV.max(dim=-1, keepdim=True)
    weights_RV = scaled_RV.sub_(peak_R1).exp_()
    sampled_R, total_R = inverse_cdf(weights_RV, uniforms_R)
    tokens_R = torch.where(greedy_R, best_R1[:, 0], sampled_R)
    return tokens_R, (weights_RV.gather(1, tokens_R[:, None])[:, 0].double().log() - total_R.log()).float()


def inverse_cdf(weights_RV: Tensor, uniforms_R: Tensor) -> tuple[Tensor, Tensor]:
    """The first index whose cumulative weight exceeds uniform x total weight, and the total weight (float64).

    A zero weight is never chosen. NaN weights give an arbitrary valid index and a NaN total.
    """
    size = weights_RV.shape[1]
    blocks_RKB = _blocks(weights_RV)
    cumulative_RK = blocks_RKB.sum(dim=-1).double().cumsum(dim=-1)
    total_R = cumulative_RK[:, -1]
    block_R, rest_R = _search(cumulative_RK, uniforms_R * total_R)
    inside_RB = blocks_RKB[torch.arange(len(block_R), device=block_R.device), block_R].double().cumsum(dim=-1)
    offset_R, _ = _search(inside_RB, rest_R)
    return (block_R * BLOCK + offset_R).clamp(max=size - 1), total_R


def _blocks(weights_RV: Tensor) -> Tensor:
    missing = -weights_RV.shape[1] % BLOCK
    padded = functional.pad(weights_RV, (0, missing)) if missing else weights_RV
    return padded.view(padded.shape[0], -1, BLOCK)


def _search(cumulative_RN: Tensor, target_R: Tensor) -> tuple[Tensor, Tensor]:
    """First n with cumulative[n] > target, and how far the target lies beyond cumulative[n - 1].

    Rounding may put a target at or past the end: it is pulled just below, so the last positive entry is found.
    """
    last_R = cumulative_RN[:, -1]
    target_R = torch.minimum(target_R, torch.nextafter(last_R, torch.zeros_like(last_R)))
    index_R = torch.searchsorted(cumulative_RN, target_R[:, None], right=True)[:, 0]
    index_R = index_R.clamp(max=cumulative_RN.shape[1] - 1)  # NaN compares as never greater
    before_RN = functional.pad(cumulative_RN, (1, 0))
    return index_R, target_R - before_RN.gather(1, index_R[:, None])[:, 0]
