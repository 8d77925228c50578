"""The prover before a real engine on a tiny model: what is asked in which order, and which faults of decoding it sees."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.config import ActorSettings
from actors.engines.torch_decoding.decoders import ExpandedDecoder, SharedPrefixDecoder
from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from actors.prover import FIRST_COPY, Prover
from contracts.adapter import Adapter
from contracts.errors import EngineError, ProofError, RefusalCause
from contracts.ports import Generation, GenerationRequest
from contracts.rollout import FinishReason
from learner.config import LearnerSettings
from learner.learner import Learner
from learner.policy import LoraPolicy
from tests.tiny_policy import tiny_llama, tiny_tokenizer

PROBES = tuple(tiny_tokenizer().encode(text) for text in ("2 + 3 =", "what is 7 - 4? think first", "a long chat " * 6))
Dtype = Literal["bfloat16", "float32"]


def published(dtype: Dtype, version: int = 1) -> Adapter:
    """By a learner whose B is that of a few updates."""
    base = tiny_llama()
    nn.Module.to(base, getattr(torch, dtype))
    settings = LearnerSettings(dtype=dtype, device="cpu", torch_threads=1, lora_r=4, lora_alpha=8.0)
    policy = LoraPolicy.around(base, "tiny", settings, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.adapter_parameters.items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.01 * version)
    learner = Learner(policy, settings, "", PROBES, max_new_tokens=8)
    learner._version = version
    return learner.publish()


class Recorded(TransformersEngine):
    events: list[tuple[Any, ...]]

    def load_adapter(self, adapter: Adapter) -> None:
        self.events.append(("load", adapter.manifest.policy_version, adapter.manifest.lora.alpha))
        super().load_adapter(adapter)

    def drop_adapter(self, policy_version: int) -> None:
        self.events.append(("drop", policy_version))
        super().drop_adapter(policy_version)

    def generate(self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float) -> Any:
        self.events.append(("generate", policy_version, tuple(len(r.prompt_P) for r in requests)))
        return super().generate(requests, policy_version, deadline_s)


def prover(dtype: Dtype, path: Literal["merged", "unmerged"] = "unmerged", **changes: Any) -> tuple[Prover, Recorded]:
    model = tiny_llama()
    nn.Module.to(model, getattr(torch, dtype))
    engine = Recorded(model, tiny_tokenizer(), path, max_batch_rows=16)
    engine.events = []
    settings = ActorSettings.model_validate({"dtype": dtype, "lora_path": path, "max_new_tokens": 8} | changes)
    return Prover("w3", OneThreadEngine(engine), settings), engine


def prove(made: Prover, *adapters: Adapter) -> None:
    async def all_of_them() -> None:
        for adapter in adapters:
            await made.load_and_prove(adapter)

    asyncio.run(all_of_them())


@pytest.mark.parametrize("path", ["merged", "unmerged"])
@pytest.mark.parametrize("engine", ["bfloat16", "float32"])
@pytest.mark.parametrize("learner", ["bfloat16", "float32"])
def test_an_honest_version_is_proven_whatever_the_data_types(
    learner: Dtype, engine: Dtype, path: Literal["merged", "unmerged"]
) -> None:
    made, _ = prover(engine, path)
    prove(made, published(learner))
    assert made.levels["adapted_P"] < 2
    assert made.levels["amplified"] < 1.4


def test_the_copies_are_dropped_and_the_base_is_asked_for_once() -> None:
    made, engine = prover("float32")
    first, second = published("float32", 1), published("float32", 2)
    prove(made, first, second)
    loads = [event[:2] for event in engine.events]
    assert loads == [
        ("load", FIRST_COPY - 1),
        ("drop", FIRST_COPY - 1),
        ("load", FIRST_COPY + 1),
        ("drop", FIRST_COPY + 1),
        ("load", 1),
        ("generate", 1),
        ("load", FIRST_COPY + 2),
        ("drop", FIRST_COPY + 2),
        ("load", 2),
        ("generate", 2),
    ]
    alphas = [event[2] for event in engine.events if event[0] == "load"]
    assert alphas[0] == 0
    assert first.manifest.amplified is not None
    assert alphas[1] == 8.0 * first.manifest.amplified.factor > 8.0
    assert alphas[2] == 8.0


def test_the_shortest_and_the_longest_probe_are_continued_together() -> None:
    made, engine = prover("float32")
    prove(made, published("float32"))
    lengths = sorted(len(probe) for probe in PROBES)
    assert [event[2] for event in engine.events if event[0] == "generate"] == [(lengths[0], lengths[-1])]


class LosesItsPlace(ExpandedDecoder):
    """Positions of the second row run one ahead: what only a batch of unequal prompts shows."""

    def step(self, tokens_R: Tensor) -> Tensor:
        self._position_R1 = self._position_R1 + torch.arange(len(tokens_R))[:, None].clamp(max=1) * 7
        return super().step(tokens_R)


class ForgetsThePrompt(SharedPrefixDecoder):
    """Reads every prompt's keys as if half of them were padding."""

    def __init__(self, model: Any, cache: Any, mask_NP: Tensor, prompt_of_R: Tensor) -> None:
        half = mask_NP.clone()
        half[:, : mask_NP.shape[1] // 2] = False
        super().__init__(model, cache, half, prompt_of_R)


@pytest.mark.parametrize("decoder", [LosesItsPlace, ForgetsThePrompt])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_engine_that_scores_right_and_generates_wrong_is_refused(dtype: Dtype, decoder: Any) -> None:
    made, engine = prover(dtype)
    engine._new_decoder = decoder
    with pytest.raises(ProofError, match=r"w3 refuses v000001-.*of tokens that it generates.*decoding"):
        prove(made, published(dtype))
    assert engine.events[-1] == ("drop", 1)


def test_an_answer_that_does_not_come_is_the_engines_failure_and_no_refusal() -> None:
    made, engine = prover("float32")
    nothing = Generation(np.zeros(0, np.int32), np.zeros(0, np.float32), FinishReason.TIMEOUT)
    engine.generate = lambda *_: [[nothing], [nothing]]  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="a greedy answer to a probe of 7 tokens ended as 'timeout'"):
        prove(made, published("float32"))


def test_bytes_that_changed_on_the_way_are_refused_before_anything_is_loaded() -> None:
    made, engine = prover("float32")
    adapter = published("float32")
    torn = bytes(adapter.weights)[:-1] + b"\x01"
    object.__setattr__(adapter, "weights", torn)
    with pytest.raises(ProofError, match="the bytes that arrived hash to") as refused:
        prove(made, adapter)
    assert refused.value.cause is RefusalCause.BYTES
    assert engine.events == []


def test_an_adapter_without_probes_is_loaded_and_not_proven() -> None:
    """A run's older versions come back from disk, where probes are not kept."""
    made, engine = prover("float32")
    adapter = published("float32")
    object.__setattr__(adapter.manifest, "probes", ())
    prove(made, adapter)
    assert engine.events == [("load", 1, 8.0)]


@pytest.mark.parametrize(
    ("engine", "dtype", "lora_path", "rounds"),
    [
        ("vllm", "bfloat16", "auto", True),  # LoRA is added to outputs that are rounded already
        ("vllm", "float32", "auto", False),
        ("transformers", "bfloat16", "auto", False),
        ("transformers", "bfloat16", "merged", True),
        ("transformers", "float32", "merged", False),
    ],
)
def test_which_engines_lose_part_of_a_small_update(engine: str, dtype: str, lora_path: str, rounds: bool) -> None:
    settings = ActorSettings.model_validate({"engine": engine, "dtype": dtype, "lora_path": lora_path})
    assert settings.rounds_small_updates is rounds
