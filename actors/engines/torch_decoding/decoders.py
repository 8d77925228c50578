"""One batch of decoding around a transformers model: prefill the prompts once, then one token per row and step.

Two of them: `SharedPrefixDecoder` keeps one copy of every prompt's keys (fast; plain full attention), and
`ExpandedDecoder` copies it per row through transformers' own cache and attention (sliding windows, hybrids of attention
with convolutions or linear attention). Which one a model gets, and whether it is right: decoder_check.py.

Shape letters: N prompts, R rows, P prompt length (left-padded), V vocabulary.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from actors.engines.torch_decoding.decode_cache import SharedPrefixCache

# Padded prompt lengths are multiples of this, so that few kernels are compiled (see decode_cache).
PROMPT_STEP = 16


class Decoder(Protocol):
    """Rows that decode in lock-step."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Feed one token per row; returns the next token's logits_RV."""

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed (ascending)."""


class DecoderClass(Protocol):
    """Makes a decoder for one batch of prompts: a class of this file, or one of the same signature."""

    def __call__(
        self, model: PreTrainedModel, cache: DynamicCache, mask_NP: Tensor, prompt_of_R: Tensor
    ) -> Decoder: ...


class SharedPrefixDecoder:
    """Prompt keys and values once per prompt, read by `shared_attention`."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask_NP: Tensor, prompt_of_R: Tensor) -> None:
        keys, values = [], []
        for layer in cache.layers:
            if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
                raise ValueError(f"cache layer {type(layer).__name__} is not plain full attention")
            keys.append(layer.keys)
            values.append(layer.values)
        self._model = model
        self._cache = SharedPrefixCache(keys, values, mask_NP, prompt_of_R)
        self._position_R1 = mask_NP.sum(dim=1)[prompt_of_R][:, None]

    def step(self, tokens_R: Tensor) -> Tensor:
        # The 4-dimensional mask is passed through by transformers untouched: no mask is built per step.
        output = self._model(
            input_ids=tokens_R[:, None],
            attention_mask=tokens_R.new_empty(1, 1, 1, 1),
            position_ids=self._position_R1,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            decode_cache=self._cache,
        )
        self._position_R1 = self._position_R1 + 1
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV

    def keep(self, rows: Tensor) -> None:
        self._cache.keep(rows)
        self._position_R1 = self._position_R1[rows]


class ExpandedDecoder:
    """transformers' own cache with the prompt copied per row, and its own masks and attention."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask_NP: Tensor, prompt_of_R: Tensor) -> None:
        _select(cache, prompt_of_R)
        self._model, self._cache = model, cache
        self._mask = mask_NP[prompt_of_R].long()
        self._position_R1 = mask_NP.sum(dim=1)[prompt_of_R][:, None]

    def step(self, tokens_R: Tensor) -> Tensor:
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        output = self._model(
            input_ids=tokens_R[:, None],
            attention_mask=self._mask,
            position_ids=self._position_R1,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._position_R1 = self._position_R1 + 1
        logits_RV: Tensor = output.logits[:, -1]
        return logits_RV

    def keep(self, rows: Tensor) -> None:
        _select(self._cache, rows)
        self._mask, self._position_R1 = self._mask[rows], self._position_R1[rows]


def _select(cache: DynamicCache, rows: Tensor) -> None:
    """As beam search does it: every kind of layer can, linear attention and convolutions too."""
    cache.reorder_cache(rows)  # type: ignore[arg-type]


def prefill(
    model: PreTrainedModel, prompts: list[NDArray[np.int32]], pad_token_id: int
) -> tuple[DynamicCache, Tensor, Tensor]:
    """Run every prompt once, left-padded. Returns the cache, mask_NP (true on real tokens) and next-token logits_NV."""
    longest = -(-max(len(prompt) for prompt in prompts) // PROMPT_STEP) * PROMPT_STEP
    tokens_NP = torch.full((len(prompts), longest), pad_token_id, dtype=torch.long)
    mask_NP = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        tokens_NP[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask_NP[row, longest - len(prompt) :] = True
    tokens_NP, mask_NP = tokens_NP.to(model.device), mask_NP.to(model.device)
    cache = DynamicCache(config=model.config)
    output = model(
        input_ids=tokens_NP,
        attention_mask=mask_NP.long(),
        position_ids=(mask_NP.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache, mask_NP, output.logits[:, -1]
