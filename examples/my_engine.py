"""An engine of your own: transformers, one sample after another, no cache, LoRA beside the weights. Copy, change, name it:

    MEMR_ENGINE=examples/my_engine.py:plain .venv/bin/pytest tests/contract/test_engine_port.py
    memr train configs/quickstart.toml --set actors.engine=examples/my_engine.py:plain --set actors.dtype=float32

The first line says whether it keeps what every engine promises, the second trains with it (slowly: it is here to be read).
docs/own_code.md has all that an engine is given and may do.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from actors.load import EngineInputs
from contracts.adapter import Adapter
from contracts.ports import Generation, GenerationRequest
from contracts.rollout import FinishReason


def plain(given: EngineInputs) -> "PlainEngine":
    """What `actors.engine` names: called once in each worker's process, in a thread; it may be async."""
    settings = given.settings
    torch.set_num_threads(settings.torch_threads)
    model = AutoModelForCausalLM.from_pretrained(given.model_path, dtype=getattr(torch, settings.dtype))
    return PlainEngine(model, given.tokenizer.eos_token_ids)


class PlainEngine:
    """contracts.ports.Engine. Versions that it does not hold, and those it holds already, are never asked of it."""

    def __init__(self, model: Any, end_tokens: frozenset[int]) -> None:
        self.model, self.end_tokens = model.train(False), end_tokens
        self.versions: dict[int, tuple[float, dict[str, Tensor]]] = {}
        self.scale, self.lora = 0.0, dict[str, Tensor]()
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._adds_lora(f"base_model.model.{path}"))

    def load_adapter(self, adapter: Adapter) -> None:
        """The weights are PEFT's, as bytes of a safetensors file."""
        shape = adapter.manifest.lora
        tensors = safetensors.torch.load(bytes(adapter.weights))
        self.versions[adapter.manifest.policy_version] = (shape.alpha / shape.r, tensors)

    def drop_adapter(self, policy_version: int) -> None:
        del self.versions[policy_version]

    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        self.scale, self.lora = self.versions[policy_version]
        ends_at = time.monotonic() + deadline_s
        return [[self._sample(request, seed, ends_at) for seed in request.seeds] for request in requests]

    def score(self, tokens_P: np.ndarray, policy_version: int) -> np.ndarray:
        self.scale, self.lora = self.versions[policy_version]
        logprobs_PV = self._logits(tokens_P.tolist())[:-1].log_softmax(-1)
        return np.array([0.0, *(row[token].item() for row, token in zip(logprobs_PV, tokens_P[1:], strict=True))])

    def _sample(self, request: GenerationRequest, seed: int, ends_at: float) -> Generation:
        """The log-probs are of the distribution that is sampled; greedy, at temperature 0, of the model's own."""
        sampling, generator = request.sampling, torch.Generator().manual_seed(seed)
        tokens, logprobs, reason = [], [], FinishReason.LENGTH
        while len(tokens) < sampling.max_new_tokens:
            if time.monotonic() > ends_at:
                reason = FinishReason.TIMEOUT
                break
            logprobs_V = (self._logits([*request.prompt_P, *tokens])[-1] / (sampling.temperature or 1.0)).log_softmax(
                -1
            )
            sampled = torch.multinomial(logprobs_V.exp(), 1, generator=generator)
            tokens.append(int(sampled if sampling.temperature else logprobs_V.argmax()))
            logprobs.append(logprobs_V[tokens[-1]].item())
            if tokens[-1] in self.end_tokens:
                reason = FinishReason.STOP
                break
        return Generation(np.array(tokens, np.int32), np.array(logprobs, np.float32), reason)

    @torch.inference_mode()
    def _logits(self, tokens: Sequence[int]) -> Tensor:
        return self.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()

    def _adds_lora(self, name: str) -> Callable[..., Tensor]:
        """A forward hook: y = W x + scale B (A x) where the version has this layer."""

        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            a, b = (self.lora.get(f"{name}.lora_{letter}.weight") for letter in "AB")
            return output if a is None else output + self.scale * (inputs[0] @ a.T.to(output) @ b.T.to(output))

        return hook
