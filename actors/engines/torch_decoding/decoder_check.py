"""Which decoder a model gets: the first that gives the numbers of plain forwards, tried before anything is sampled.

    a small float32 model of the same class, one layer of every kind, windows shorter than the rows
      -> plain forwards with eager attention, one row at a time, no cache     what is right
      -> SharedPrefixDecoder | ExpandedDecoder | ExpandedDecoder with eager attention (soft caps, sinks)
         two prompts of different length, three rows, one of which leaves     the first that agrees; else refused

Not on the model itself: that may be in bfloat16, where two correct orders of summation differ by whole units of a logit, and
its windows are longer than any quick check. `TransformersEngine.score` cannot tell either: it runs a plain forward.

Shape letters: R rows, V vocabulary, S steps.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from actors.engines.torch_decoding import shared_attention
from actors.engines.torch_decoding.decoders import DecoderClass, ExpandedDecoder, SharedPrefixDecoder, prefill
from contracts.errors import DataError
from loading.load_errors import out_of_memory

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Largest difference of a logit over the logits' standard deviation; a row that sees another's state: 0.1 to 3 in float32."""

WINDOW, VOCABULARY = 3, 16
PROMPTS = (tuple(range(1, 8)), (9, 4, 11, 2))
PROMPT_OF_ROW, FED, KEPT = (0, 0, 1), ((1, 5, 3), (2, 2, 7), (6, 1, 4)), (0, 2)
"""Row 1 leaves before the last step."""

FAILURES = (ValueError, TypeError, AttributeError, RuntimeError, LookupError, AssertionError)
"""What a model's own code raises when it meets a cache that it was not written for."""

CHOICES: tuple[tuple[DecoderClass, str], ...] = (
    (SharedPrefixDecoder, shared_attention.NAME),
    (ExpandedDecoder, shared_attention.NAME),
    (ExpandedDecoder, "eager"),
)
"""With the attention that goes with it."""


@torch.inference_mode()
def choose_decoder(model: PreTrainedModel) -> DecoderClass:
    """Sets the attention of `model` that the decoder needs. Raises DataError where none gives the model's own numbers."""
    shared_attention.register()
    subject = _subject(model)
    try:
        subject.set_attn_implementation("eager")
        expected = _plain_logits(subject)
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise
        raise DataError(
            f"this model's own forward (type {model.config.model_type}) fails on a few tokens: {type(error).__name__}: {error}. "
            "Look at its config.json, or choose another base model"
        ) from error
    found = ""
    for decoder_class, attention in CHOICES:
        found = _differs(subject, expected, decoder_class, attention)
        if not found:
            model.set_attn_implementation(attention)
            return decoder_class
    raise DataError(
        f"the transformers engine cannot decode this model (type {model.config.model_type}) token by token as its own forward "
        f"reads it: {found}. Take actors.engine = 'vllm' if vLLM knows the architecture, or another base model"
    )


def _differs(subject: PreTrainedModel, expected: Sequence[Tensor], decoder_class: DecoderClass, attention: str) -> str:
    """Empty where the decoder agrees, else what is wrong."""
    try:
        subject.set_attn_implementation(attention)
        actual = _decoded_logits(subject, decoder_class)
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError) or out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}"
    gap = max(float((a - e).abs().max() / e.std()) for a, e in zip(actual, expected, strict=True))
    return "" if gap <= TOLERANCE[subject.dtype] else f"logits differ by up to {gap:.2g} of their standard deviation"


def _plain_logits(subject: PreTrainedModel) -> list[Tensor]:
    """After each fed token, [R, V] of the rows that are still there."""
    steps: list[list[Tensor]] = [[] for _ in FED[0]]
    for row, prompt in enumerate(PROMPT_OF_ROW):
        ids_1P = torch.tensor([[*PROMPTS[prompt], *FED[row]]], device=subject.device)
        logits_SV = subject(input_ids=ids_1P, use_cache=False).logits[0, len(PROMPTS[prompt]) :].float()
        for step, logits_V in enumerate(logits_SV):
            if row in KEPT or step < len(steps) - 1:
                steps[step].append(logits_V)
    return [torch.stack(rows) for rows in steps]


def _decoded_logits(subject: PreTrainedModel, decoder_class: DecoderClass) -> list[Tensor]:
    prompts: list[NDArray[np.int32]] = [np.array(prompt, np.int32) for prompt in PROMPTS]
    cache, mask_NP, _ = prefill(subject, prompts, pad_token_id=0)
    decoder = decoder_class(subject, cache, mask_NP, torch.tensor(PROMPT_OF_ROW, device=subject.device))
    fed_RS, kept = torch.tensor(FED, device=subject.device), torch.tensor(KEPT, device=subject.device)
    logits = [decoder.step(fed_RS[:, step]).float() for step in range(len(FED[0]) - 1)]
    decoder.keep(kept)
    return [*logits, decoder.step(fed_RS[kept, -1]).float()]


def _subject(model: PreTrainedModel) -> PreTrainedModel:
    """The small model; the model itself where its configuration cannot be cut."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            small: PreTrainedModel = type(model)(_cut(model.config))
        small.train(False)
        nn.Module.to(small, device=model.device, dtype=torch.float32)
        _plain_logits(small)
    except FAILURES:
        return model
    return small


def _cut(config: PretrainedConfig) -> PretrainedConfig:
    """As many layers as it takes to have one of every kind, at least two; short windows; a small vocabulary."""
    small = copy.deepcopy(config)
    kinds = [
        str(kind) for kind in getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    ]
    layers = max([2, *(kinds.index(kind) + 1 for kind in set(kinds))])
    total = config.num_hidden_layers
    lists = {
        name: value[:layers]
        for name, value in config.to_dict().items()
        if isinstance(value, list) and len(value) == total
    }
    windows = {
        n: WINDOW for n in ("sliding_window", "attention_window_size") if isinstance(getattr(config, n, None), int)
    }
    sizes = {"num_hidden_layers": min(layers, total), "vocab_size": VOCABULARY}
    named = {n: t for n, t in config.to_dict().items() if n.endswith("_token_id") and isinstance(t, int)}
    special = {n: 0 for n, token in named.items() if token >= VOCABULARY or n == "pad_token_id"}  # prompts begin at 1
    small.update(sizes | special | lists | windows)
    return small
