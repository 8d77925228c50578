"""One wave of decoding around a transformers model: prefill the prompts once, then one token per row and step.

Two of them: `SharedPrefixDecoder` keeps one copy of every prompt's keys (fast; plain full attention), and
`ExpandedDecoder` copies it per row through transformers' own cache and attention (any architecture).
`choose_decoder` tries the fast one on a toy prompt and compares.

Shape letters: N prompts, R rows, P prompt length (left-padded), V vocabulary.
"""

import copy
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from actors import shared_attention
from actors.decode_cache import SharedPrefixCache

# Padded prompt lengths are multiples of this, so that few kernels are compiled (see decode_cache).
PROMPT_STEP = 16


class Decoder(Protocol):
    """Rows that decode in lock-step."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Feed one token per row; returns the next token's logits_RV."""

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed (ascending)."""


class DecoderClass(Protocol):
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
        cache.batch_select_indices(prompt_of_R)
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
        self._cache.batch_select_indices(rows)
        self._mask, self._position_R1 = self._mask[rows], self._position_R1[rows]


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


@torch.inference_mode()
def choose_decoder(model: PreTrainedModel) -> DecoderClass:
    """The shared-prefix decoder where this model's attention allows it and gives the same numbers, else the expanded.

    Numbers are compared on a random two-layer float32 model of the same architecture: the real one may be in
    bfloat16, where two correct orders of summation differ by whole units of a logit.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return ExpandedDecoder
    shared_attention.register()
    try:
        if not _same_numbers(_toy(model)):
            return ExpandedDecoder
        model.set_attn_implementation(shared_attention.NAME)
    except (ValueError, TypeError, AttributeError):
        return ExpandedDecoder
    return SharedPrefixDecoder


def _toy(model: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    config.update({"num_hidden_layers": 2, "vocab_size": 16, "pad_token_id": None})
    if getattr(config, "layer_types", None) is not None:
        config.update({"layer_types": config.layer_types[:2]})
    with torch.random.fork_rng(devices=[]):
        toy: PreTrainedModel = type(model)(config)
    toy.train(False)
    nn.Module.to(toy, device=model.device, dtype=torch.float32)
    return toy


def _same_numbers(toy: PreTrainedModel) -> bool:
    expected = _toy_logits(toy, ExpandedDecoder)
    toy.set_attn_implementation(shared_attention.NAME)
    actual = _toy_logits(toy, SharedPrefixDecoder)
    return bool(torch.allclose(actual, expected, atol=1e-4, rtol=1e-4))


def _toy_logits(toy: PreTrainedModel, decoder_class: DecoderClass) -> Tensor:
    prompts = [np.arange(1, 4, dtype=np.int32), np.arange(4, 6, dtype=np.int32)]
    cache, mask_NP, _ = prefill(toy, prompts, pad_token_id=0)
    decoder = decoder_class(toy, cache, mask_NP, torch.tensor([0, 0, 1], device=toy.device))
    tokens_R = torch.tensor([1, 2, 1], device=toy.device)
    return torch.stack([decoder.step(tokens_R), decoder.step(tokens_R)])
