"""One small update of a tiny model, and how much of it a bfloat16 forward lets through.

Moved: log-probs under the update minus log-probs without it, both from one forward. Arrived: the regression of what a
forward moved on what the same update moves in float32; 1 is all of it. A forward's own rounding is in both of its
scores and averages out over the tokens: a standard error of about 0.2 for one model, so tests take the mean over SEEDS.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from tests.tiny_policy import lora_tensors, tiny_llama, tiny_tokenizer

LEARNING_RATE = 1e-4
"""The default of [learner]: the first step of AdamW moves every number of B by this much."""
SCALE = 2.0
SEEDS = range(5)
Scores = Callable[[NDArray[np.int32]], NDArray[np.float32]]


def bfloat16_llama(seed: int) -> PreTrainedModel:
    model = tiny_llama(seed)
    nn.Module.to(model, torch.bfloat16)
    return model


def _exact(seed: int) -> nn.Module:
    """The same weights in float32."""
    return nn.Module.to(bfloat16_llama(seed), torch.float32)


def sequences(count: int = 24, length: int = 60) -> list[NDArray[np.int32]]:
    random = np.random.default_rng(0)
    return [random.integers(2, tiny_tokenizer().vocab_size, length).astype(np.int32) for _ in range(count)]


def one_update(seed: int, tokens: Sequence[NDArray[np.int32]]) -> dict[str, Tensor]:
    """PEFT's tensors after one step of LEARNING_RATE up (even sequences) and down (odd ones) the log-probs, from B = 0;
    numbers that bfloat16 holds exactly."""
    model = _exact(seed)
    tensors = {name: tensor.bfloat16().float() for name, tensor in lora_tensors(model, b_std=0.0, seed=seed).items()}
    halves = {name: tensor.requires_grad_() for name, tensor in tensors.items() if ".lora_B." in name}
    total = sum((-1) ** i * _logprobs(model, tensors, one).sum() for i, one in enumerate(tokens))
    assert isinstance(total, Tensor)
    gradients = torch.autograd.grad(total, list(halves.values()))
    stepped = {
        name: (LEARNING_RATE * grad.sign()).bfloat16().float() for name, grad in zip(halves, gradients, strict=True)
    }
    return {name: tensor.detach() for name, tensor in tensors.items()} | stepped


def without(update: dict[str, Tensor]) -> dict[str, Tensor]:
    """The version before it: B = 0."""
    return {name: tensor * (".lora_A." in name) for name, tensor in update.items()}


def arrived(seed: int, forward: Callable[[dict[str, Tensor]], Scores]) -> float:
    """Share of the update's effect on log-probs that comes through. forward: from PEFT's tensors to a function from
    tokens to log-probs, on `bfloat16_llama(seed)`."""
    model, tokens = _exact(seed), sequences()
    update = one_update(seed, tokens)
    none = without(update)
    with torch.no_grad():
        wanted = torch.cat([_logprobs(model, update, one) - _logprobs(model, none, one) for one in tokens])
    before, after = ([score(one) for one in tokens] for score in map(forward, (none, update)))
    moved = np.concatenate([(new - old)[1:] for old, new in zip(before, after, strict=True)])
    assert wanted.abs().mean() > 1e-3, "the update does something in float32"
    return float(moved @ wanted.numpy() / (wanted @ wanted))


def _logprobs(model: nn.Module, tensors: dict[str, Tensor], tokens_P: NDArray[np.int32]) -> Tensor:
    """Differentiable, float32, in weights W0 + scale B A."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b_OK = tensors[name.replace("lora_A", "lora_B")]
            weights[f"{path}.weight"] = weights[f"{path}.weight"].detach() + SCALE * b_OK @ tensors[name]
    tokens_1P = torch.from_numpy(tokens_P.astype(np.int64))[None]
    logits_PV = functional_call(model, weights, kwargs={"input_ids": tokens_1P, "use_cache": False}).logits[0, :-1]
    return torch.log_softmax(logits_PV, -1).gather(1, tokens_1P[0, 1:, None])[:, 0]
