"""Attention of one new token per row over a shared prompt and the row's own tokens.

Registered with transformers under its own name. For a group of G samples the prompt's keys are read once for
G x rep queries (a matrix product) instead of once per sample; key-value heads are never repeated; one softmax in
float32 covers both parts, so the result equals ordinary attention. Prefill and scoring go to stock sdpa.

Shape letters: N prompts, S slots per prompt, R rows, H key-value heads, Q queries per key-value head,
X = S x Q, P prompt length, C slab capacity (own tokens and an unused end), D head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from actors.engines.torch_decoding.decode_cache import SharedPrefixCache

NAME = "memr_shared_prefix"
# What other architectures pass and plain softmax attention ignores at q_len 1; anything else is refused.
_HARMLESS = frozenset(
    {"position_ids", "use_cache", "is_causal", "output_attentions", "output_router_logits", "cache_position"}
)
# What transformers' sdpa is passed and leaves out without a word: soft caps of the scores, attention sinks.
_IGNORED_BY_SDPA = frozenset({"softcap", "s_aux"})


def register() -> None:
    """Make the name known to transformers; harmless when repeated."""
    AttentionInterface.register(NAME, shared_prefix_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def shared_prefix_attention(  # noqa: PLR0913  transformers' signature
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    decode_cache: SharedPrefixCache | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature; query [R, H x Q, 1, D], key and value the slabs.

    Raises ValueError for attention variants that it does not compute: soft caps and sinks always, windows in decoding.
    """
    if lost := {name for name in _IGNORED_BY_SDPA if kwargs.get(name) is not None}:
        raise ValueError(f"attention of {type(module).__name__} wants {sorted(lost)}, which sdpa does not do")
    if decode_cache is None:
        stock: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward
        return stock(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    unknown = {name for name, given in kwargs.items() if given is not None} - _HARMLESS
    if unknown:
        raise ValueError(f"attention of {type(module).__name__} passes {sorted(unknown)}, unknown to {NAME}")
    layer = module.layer_idx
    assert isinstance(layer, int)
    rows, heads, _, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    query_RHQD = (query * scale).view(rows, key.shape[1], heads // key.shape[1], size)
    output_RHQD = grouped_attention(query_RHQD, key, value, layer, decode_cache)
    return output_RHQD.reshape(rows, 1, heads, -1), None


def grouped_attention(
    query_RHQD: Tensor, key_RHCD: Tensor, value_RHCD: Tensor, layer: int, cache: SharedPrefixCache
) -> Tensor:
    """softmax(q [K_prompt; K_own]^T) [V_prompt; V_own] with the scale already in q; returns [R, H, Q, D]."""
    heads, queries, size = query_RHQD.shape[1:]
    prefix_keys_NHPD, prefix_values_NHPD = cache.prefix_keys[layer], cache.prefix_values[layer]
    prompts, length = prefix_keys_NHPD.shape[0], prefix_keys_NHPD.shape[2]

    query_NSHQD = cache.to_slots(query_RHQD)
    query_NHXD = query_NSHQD.transpose(1, 2).reshape(prompts, heads, -1, size)
    prompt_NHXP = torch.matmul(query_NHXD, prefix_keys_NHPD.transpose(2, 3))
    if cache.is_padded:
        prompt_NHXP.masked_fill_(cache.masked_N1P[:, None], -torch.inf)
    prompt_NSHQP = prompt_NHXP.view(prompts, heads, -1, queries, length).transpose(1, 2)
    own_RHQC = torch.matmul(query_RHQD, key_RHCD.transpose(2, 3))
    own_RHQC[..., cache.suffixes[layer].length :] = -torch.inf

    scores = torch.cat([cache.to_rows(prompt_NSHQP), own_RHQC], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    weights_NHXP = cache.to_slots(weights[..., :length]).transpose(1, 2).reshape(prompts, heads, -1, length)
    from_prompt_NHXD = torch.matmul(weights_NHXP, prefix_values_NHPD)
    from_prompt_NSHQD = from_prompt_NHXD.view(prompts, heads, -1, queries, from_prompt_NHXD.shape[-1]).transpose(1, 2)
    return cache.to_rows(from_prompt_NSHQD) + torch.matmul(weights[..., length:], value_RHCD)
