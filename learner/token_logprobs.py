"""Log-probs and entropies of given tokens from hidden states, in chunks: [tokens, vocabulary] never exists whole.

The head is frozen, so the derivative with respect to the hidden state is all that backward needs. It is computed in the
forward, while the chunk's probabilities are there, and kept as one [N, D] tensor:

    log p(y)  = z_y - logsumexp(z),  z = W h / T          d log p(y) / dh = sum_v (1[v = y] - p_v) W_v / T
    H         = - sum_v p_v log p_v                       dH / dh = - sum_v p_v (log p_v + H) W_v / T

so the head is never run again. Logits are rounded to the model's dtype and then taken to float32, as generation
engines do it; float64 stays float64. The weights of W_v are float32 until they meet W: 1 - p is exact there, while W_y -
sum_v p_v W_v, of products that are rounded already, is rounding noise in bfloat16 once p(y) is near 1.

Shape letters: N tokens, C chunk, V vocabulary, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor


def token_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    target_N: Tensor,
    temperature_N: Tensor,
    chunk_tokens: int,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """logprob_N and entropy_N, float32. temperature_N: > 0, each token's own.

    entropy_gradient: whether entropy_N carries a gradient; off it costs no second product with the head.
    """
    both: tuple[Tensor, Tensor] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_ND, head_VD, target_N, temperature_N, chunk_tokens, entropy_gradient
    )
    return both


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        target_N: Tensor,
        temperature_N: Tensor,
        chunk_tokens: int,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        if head_VD.requires_grad:
            raise ValueError("the output head wants a gradient; the learner keeps it frozen (adapt other layers)")
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        logprob_N = hidden_ND.new_empty(len(hidden_ND), dtype=wide)
        entropy_N = torch.empty_like(logprob_N)
        wants_gradient = ctx.needs_input_grad[0]
        logprob_grad_ND = torch.empty_like(hidden_ND) if wants_gradient else None
        entropy_grad_ND = torch.empty_like(hidden_ND) if wants_gradient and entropy_gradient else None
        for start in range(0, len(hidden_ND), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            z_CV, p_CV, lse_C = _softmax(hidden_ND[chunk], head_VD, temperature_N[chunk], wide)
            target_C1 = target_N[chunk, None]
            logprob_N[chunk] = z_CV.gather(1, target_C1)[:, 0] - lse_C
            entropy_N[chunk] = lse_C - torch.linalg.vecdot(p_CV, z_CV)
            # In place: nothing reads z after its use, nor p.
            if entropy_grad_ND is not None:
                weight_CV = z_CV.sub_((lse_C - entropy_N[chunk])[:, None]).mul_(p_CV)
                torch.mm(weight_CV.to(head_VD.dtype), head_VD, out=entropy_grad_ND[chunk])
            if logprob_grad_ND is not None:
                p_CV.scatter_add_(1, target_C1, p_CV.new_full((1, 1), -1.0).expand(len(target_C1), 1))
                torch.mm(p_CV.to(head_VD.dtype), head_VD, out=logprob_grad_ND[chunk])
        ctx.save_for_backward(logprob_grad_ND, entropy_grad_ND, temperature_N)
        if entropy_grad_ND is None:
            ctx.mark_non_differentiable(entropy_N)
        return logprob_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Both products were kept without their minus sign and the temperature; float32 until the sum is rounded once."""
        logprob_grad_ND, entropy_grad_ND, temperature_N = ctx.saved_tensors
        grad_ND = (-grads[0] / temperature_N)[:, None] * logprob_grad_ND
        if entropy_grad_ND is not None:
            grad_ND = grad_ND + (-grads[1] / temperature_N)[:, None] * entropy_grad_ND
        return grad_ND.to(logprob_grad_ND.dtype), None, None, None, None, None


def _softmax(
    hidden_CD: Tensor, head_VD: Tensor, temperature_C: Tensor, wide: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """z_CV, p_CV = softmax(z) and lse_C = logsumexp(z). torch's logsumexp is many times slower than its softmax on a
    CPU, so lse is read off the largest entry, whose probability is at least 1 / V: log p = z - lse there."""
    z_CV = (hidden_CD @ head_VD.t()).to(wide)
    z_CV.div_(temperature_C.to(wide)[:, None])
    p_CV = torch.softmax(z_CV, dim=-1)
    largest_C1, at_C1 = z_CV.max(dim=-1, keepdim=True)
    lse_C = (largest_C1 - p_CV.gather(1, at_C1).log())[:, 0]
    return z_CV, p_CV, lse_C
