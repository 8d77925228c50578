"""Every architecture decodes as its own plain forward reads it, or is refused at the start: one row of the table each.

The oracle is the model with eager attention and a hook per adapted layer, one sequence at a time, without a cache.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from actors.config import ActorSettings
from actors.engines.torch_decoding.decoder_check import choose_decoder
from actors.engines.torch_decoding.decoders import ExpandedDecoder, SharedPrefixDecoder
from actors.engines.torch_decoding.lora_weights import ALL_LINEAR
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from actors.load import load_engine
from contracts.errors import DataError
from tests.tiny_policy import adapter_of, ask, reference_logprobs, tiny_tokenizer
from tests.toy_models import TOYS, toy

SHARED = {
    "llama",
    "olmo2",
    "phi3",
    "phi3, longrope",
    "gpt2",
    "qwen3_moe",
    "qwen2_moe",
    "mixtral",
    "gpt_neox",
    "opt",
    "granite",
}
REFUSED = {"recurrent_gemma", "mamba2", "bert", "minimax", "rwkv", "xlstm"}
ROUNDING = {"zamba2": 5e-3}
"""Nats, where it is more than 2e-4. transformers clamps the time step of a Mamba-2 prompt from below and not that of a token."""
NO_LINEAR_LAYERS = {"gpt2"}


def model_of(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return toy(name, dtype, vocab_size=tiny_tokenizer().vocab_size)


def all_linear(model: PreTrainedModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    tensors = {}
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            name = f"base_model.model.{path}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, layer.in_features, generator=generator) * 0.2
            tensors[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, 4, generator=generator) * 0.1
    return tensors


@pytest.mark.parametrize("name", sorted(TOYS.keys() - REFUSED - NO_LINEAR_LAYERS))
def test_sampled_and_scored_logprobs_are_those_of_a_plain_forward(name: str) -> None:
    """Prompts of unlike length, groups of unlike size, rows that end early and leave."""
    plain = model_of(name)
    plain.set_attn_implementation("eager")
    tensors = all_linear(plain)
    engine = TransformersEngine(model_of(name), tiny_tokenizer(), "unmerged", max_batch_rows=16)
    engine.load_adapter(adapter_of(1, tensors, targets=(ALL_LINEAR,)))
    requests = [ask("what is 3 + 4 ?", range(5), 3), ask("1 + 1", range(10, 19), 24), ask("x", (30,), 9)]
    checked = 0
    for request, generations in zip(requests, engine.generate(requests, 1, 60.0), strict=True):
        for generation in generations:
            whole_P = np.concatenate([request.prompt_P, generation.tokens_T])
            expected = reference_logprobs(plain, tensors, 2.0, whole_P)
            gap = ROUNDING.get(name, 2e-4)
            np.testing.assert_allclose(generation.logprobs_T, expected[len(request.prompt_P) :], atol=gap)
            np.testing.assert_allclose(engine.score(whole_P, 1), expected, atol=2e-4)
            checked += 1
    assert checked == 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(TOYS.keys() - REFUSED))
def test_which_decoder_does_not_depend_on_the_data_type(name: str, dtype: torch.dtype) -> None:
    assert choose_decoder(model_of(name, dtype)) is (SharedPrefixDecoder if name in SHARED else ExpandedDecoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_decodes_wrong_is_refused_before_it_samples(name: str, dtype: torch.dtype) -> None:
    """RecurrentGemma keeps its state in the layers, not in the cache: 2 nats off, and `score` cannot see it."""
    with pytest.raises(DataError, match=rf"cannot decode this model \(type {name}\).*actors\.engine = 'vllm'"):
        choose_decoder(model_of(name, dtype))


def test_soft_caps_that_sdpa_leaves_out_are_decoded_with_eager_attention() -> None:
    model = model_of("gemma2, scores capped alone")
    choose_decoder(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("broken", [SharedPrefixDecoder, ExpandedDecoder])
def test_a_decoder_that_is_wrong_for_one_row_is_not_chosen(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = broken.keep
    monkeypatch.setattr(broken, "keep", lambda self, rows: keep(self, torch.zeros_like(rows)))
    if broken is SharedPrefixDecoder:
        assert choose_decoder(model_of("llama")) is ExpandedDecoder
    else:
        with pytest.raises(DataError, match="logits differ by up to"):
            choose_decoder(model_of("lfm2"))


def test_a_model_whose_own_forward_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")

    def fails(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("size of tensor a")

    monkeypatch.setattr(type(model.model), "forward", fails)
    with pytest.raises(
        DataError, match=r"own forward \(type llama\) fails on a few tokens: RuntimeError: size of tensor a"
    ):
        choose_decoder(model)


def test_gpt2_is_refused_with_the_reason(tmp_path: Path) -> None:
    model_of("gpt2").save_pretrained(tmp_path)
    settings = ActorSettings(engine="transformers", device="cpu", torch_threads=1)
    with pytest.raises(DataError, match="transformers' Conv1D, as GPT-2's are"):
        load_engine(settings, tmp_path, tiny_tokenizer())
