"""A tiny random Llama with adapters of known weights, for tests of engines and of whatever must agree with them."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from actors.engines.scripted.char_tokenizer import CharTokenizer
from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.ports import GenerationRequest
from contracts.problem import Sampling

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHABET = "".join(chr(code) for code in range(32, 127)) + "\n"


def tiny_tokenizer() -> CharTokenizer:
    return CharTokenizer(ALPHABET)


def tiny_llama(seed: int = 0, *, heads: int = 4, key_value_heads: int = 2, tied: bool = False) -> LlamaForCausalLM:
    """Two layers, hidden 32, weights large enough that next-token distributions are far from uniform."""
    config = LlamaConfig(
        vocab_size=tiny_tokenizer().vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.train(False)
    return model


def lora_tensors(model: nn.Module, *, r: int = 4, b_std: float = 0.2, seed: int = 0) -> dict[str, Tensor]:
    """PEFT's tensor names for every target of the model; b_std 0 is the untrained policy."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and path.rsplit(".", 1)[-1] in TARGETS:
            name = f"base_model.model.{path}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(r, layer.in_features, generator=generator) * 0.2
            tensors[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, r, generator=generator) * b_std
    return tensors


def adapter_of(version: int, tensors: Mapping[str, Tensor], *, r: int = 4, targets: Sequence[str] = TARGETS) -> Adapter:
    weights = safetensors.torch.save(dict(tensors))
    digest = hashlib.sha256(weights).hexdigest()
    lora = LoraShape(r=r, alpha=2.0 * r, target_modules=tuple(targets))
    return Adapter(AdapterManifest(version, digest, len(weights), "tiny", lora, "float32", "chars"), weights)


def tiny_adapter(version: int, model: nn.Module, *, b_std: float = 0.2) -> Adapter:
    """Version 0 has B = 0; every other version has weights of its own."""
    return adapter_of(version, lora_tensors(model, b_std=0.0 if version == 0 else b_std, seed=version))


def ask(prompt: str, seeds: Sequence[int], max_new_tokens: int = 12, temperature: float = 1.0) -> GenerationRequest:
    return GenerationRequest(tiny_tokenizer().encode(prompt), tuple(seeds), Sampling(temperature, max_new_tokens))


@torch.no_grad()
def reference_logprobs(
    model: nn.Module, tensors: Mapping[str, Tensor], scale: float, tokens_P: NDArray[np.int32], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Log-prob of each token given those before it, as PEFT computes it: y = W x + scale B (A x), layer by layer."""
    handles = []
    for path, layer in model.named_modules():
        a, b = (tensors.get(f"base_model.model.{path}.lora_{letter}.weight") for letter in "AB")
        if a is None or b is None:
            continue

        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            return output + scale * (inputs[0] @ a.T @ b.T)

        handles.append(layer.register_forward_hook(add))
    tokens_1P = torch.from_numpy(tokens_P.astype(np.int64))[None]
    logits_PV = model(input_ids=tokens_1P, use_cache=False).logits[0, :-1] / temperature
    for handle in handles:
        handle.remove()
    picked = torch.log_softmax(logits_PV, dim=-1).gather(1, tokens_1P[0, 1:, None])[:, 0]
    return np.concatenate([np.zeros(1, np.float32), picked.numpy()])
