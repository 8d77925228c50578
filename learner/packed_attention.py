"""Attention over a `PackedLayout`: prompts see themselves, rows see their prompt and themselves.

Registered with transformers under its own name, and reached through the model's own code, so that every model whose
attention is plain, full and causal works unchanged. Without a layout it is transformers' sdpa.

Why not sdpa here: on a CPU the fused kernel's bfloat16 backward took 3 to 4 times as long as the three matrix products
and a softmax below (16 rows x 64 queries x 144 keys). The products keep the weights, so from `FUSED_FROM_QUERIES` on,
where those would fill memory, the fused kernel takes over.

Shape letters: N flat tokens, R rows, T longest row, P longest prompt, K = P + T keys, H key-value heads, Q queries per
key-value head, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from learner.packed_layout import PackedLayout, RowIndex

NAME = "memr_packed"
FUSED_FROM_QUERIES = 512
# What architectures pass along and plain causal attention may ignore; anything else that is set is refused.
_HARMLESS = frozenset({"position_ids", "use_cache", "is_causal", "output_attentions", "cache_position"})
# What transformers' sdpa is passed and leaves out without a word: soft caps of the scores, attention sinks.
_IGNORED_BY_SDPA = frozenset({"softcap", "s_aux"})


def register() -> None:
    """Make the name known to transformers; harmless when repeated."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def packed_attention(  # noqa: PLR0913  transformers' signature
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_layout: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: query [1, H x Q, N, D], key and value [1, H, N, D] -> [1, N, H x Q, D].

    Raises ValueError for kinds of attention it does not know: with a layout sliding windows too, soft caps and sinks always.
    """
    if lost := {name for name in _IGNORED_BY_SDPA if kwargs.get(name) is not None}:
        raise ValueError(f"attention of {type(module).__name__} wants {sorted(lost)}, which sdpa does not do")
    if packed_layout is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    unknown = {name for name, given in kwargs.items() if given is not None} - _HARMLESS
    if unknown or dropout:
        raise ValueError(
            f"attention of {type(module).__name__} wants {sorted(unknown) or 'dropout'}, which a shared prompt does not do"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query_NHD, key_NHD, value_NHD = ((tensor[0].transpose(0, 1)) for tensor in (query * scale, key, value))
    return _both_parts(query_NHD, key_NHD, value_NHD, packed_layout)[None], None


def _both_parts(query_NHD: Tensor, key_NHD: Tensor, value_NHD: Tensor, layout: PackedLayout) -> Tensor:
    split = layout.num_prompt_tokens
    prompt_keys, prompt_values = (_pad(x[:split], layout.prompts) for x in (key_NHD, value_NHD))
    prompt_queries = _pad(query_NHD[:split], layout.prompts)
    prompts = _attend(prompt_queries, prompt_keys, prompt_values, _causal_bias(prompt_queries, None))
    outputs = [_unpad(prompts, layout.prompts)]
    if len(query_NHD) > split:
        queries = _pad(query_NHD[split:], layout.rows)
        keys, values = (
            torch.cat([prefix.index_select(0, layout.prompt_of_R), _pad(x[split:], layout.rows)], dim=1)
            for prefix, x in ((prompt_keys, key_NHD), (prompt_values, value_NHD))
        )
        rows = _attend(queries, keys, values, _causal_bias(queries, layout.prompt_mask_RP))
        outputs.append(_unpad(rows, layout.rows))
    return torch.cat(outputs)


def _attend(query_RTXD: Tensor, key_RKHD: Tensor, value_RKHD: Tensor, bias_RTK: Tensor) -> Tensor:
    """softmax(q k^T + bias) v with the scale already in q; X = H x Q query heads. Returns [R, T, X, D]."""
    rows, length, query_heads, size = query_RTXD.shape
    heads = key_RKHD.shape[2]
    key_RHKD, value_RHKD = key_RKHD.transpose(1, 2), value_RKHD.transpose(1, 2)
    if length >= FUSED_FROM_QUERIES:
        key_RXKD, value_RXKD = (x.repeat_interleave(query_heads // heads, dim=1) for x in (key_RHKD, value_RHKD))
        fused = scaled_dot_product_attention(
            query_RTXD.transpose(1, 2), key_RXKD, value_RXKD, attn_mask=bias_RTK[:, None], scale=1.0
        )
        return fused.transpose(1, 2)
    # Queries of one key-value head are stacked, so keys and values are never repeated.
    query_RHZD = query_RTXD.view(rows, length, heads, -1, size).permute(0, 2, 3, 1, 4).reshape(rows, heads, -1, size)
    scores_RHZK = torch.matmul(query_RHZD, key_RHKD.transpose(2, 3))
    scores_RHQTK = scores_RHZK.view(rows, heads, -1, length, scores_RHZK.shape[-1]).add_(bias_RTK[:, None, None])
    weights_RHZK = torch.softmax(scores_RHQTK, dim=-1).view_as(scores_RHZK)
    output_RHQTD = torch.matmul(weights_RHZK, value_RHKD).view(rows, heads, -1, length, value_RHKD.shape[-1])
    return output_RHQTD.permute(0, 3, 1, 2, 4).reshape(rows, length, query_heads, -1)


def _causal_bias(query_RTXD: Tensor, prompt_mask_RP: Tensor | None) -> Tensor:
    """0 where a query may look, -inf where not. Right padding needs no mask of its own: no real query looks that far,
    and what padded queries see is thrown away."""
    length = query_RTXD.shape[1]
    own_1TT = query_RTXD.new_full((1, length, length), -torch.inf).triu_(1)
    if prompt_mask_RP is None:
        return own_1TT
    prompt_R1P = torch.zeros_like(prompt_mask_RP, dtype=own_1TT.dtype).masked_fill_(~prompt_mask_RP, -torch.inf)[
        :, None
    ]
    rows = len(prompt_mask_RP)
    return torch.cat([prompt_R1P.expand(rows, length, -1), own_1TT.expand(rows, -1, -1)], dim=2)


def _pad(flat_N: Tensor, index: RowIndex) -> Tensor:
    rows_RT: Tensor = _PadRows.apply(flat_N, index)  # type: ignore[no-untyped-call]
    return rows_RT


def _unpad(rows_RT: Tensor, index: RowIndex) -> Tensor:
    flat_N: Tensor = _UnpadRows.apply(rows_RT, index)  # type: ignore[no-untyped-call]
    return flat_N


class _PadRows(torch.autograd.Function):
    """[N, ...] to [R, T, ...]. Its gradient is the way back: a gather, where autograd's own would scatter and add.
    Exact because empty slots get no gradient (masked keys, discarded queries)."""

    @staticmethod
    def forward(ctx: Any, flat_N: Tensor, index: RowIndex) -> Tensor:
        ctx.index = index
        return flat_N.index_select(0, index.pad_RT.flatten()).view(*index.pad_RT.shape, *flat_N.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad_RT: Tensor) -> tuple[Tensor, None]:
        return grad_RT.flatten(0, 1).index_select(0, ctx.index.unpad_N), None


class _UnpadRows(torch.autograd.Function):
    """[R, T, ...] to [N, ...]; the gradient of an empty slot is 0."""

    @staticmethod
    def forward(ctx: Any, rows_RT: Tensor, index: RowIndex) -> Tensor:
        ctx.index = index
        return rows_RT.flatten(0, 1).index_select(0, index.unpad_N)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:
        index: RowIndex = ctx.index
        slots = grad_N.new_zeros(index.pad_RT.numel(), *grad_N.shape[1:])
        return slots.index_copy_(0, index.unpad_N, grad_N).view(*index.pad_RT.shape, *grad_N.shape[1:]), None
