"""What every engine promises (contracts.ports.Engine), asked of each of them; of one of your own alone with

MEMR_ENGINE=FILE.py:name .venv/bin/pytest tests/contract/test_engine_port.py
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actors.config import ActorSettings, ScriptedSettings
from actors.engines.scripted.scripted_engine import ScriptedEngine
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from actors.load import EngineNeeds, start_engine
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError
from contracts.ports import AsyncEngine, Engine, Generation, GenerationRequest
from contracts.rollout import FinishReason
from tests.small_updates import bfloat16_llama
from tests.tiny_policy import ask, tiny_adapter, tiny_llama, tiny_tokenizer

EngineMaker = Callable[[Path], Engine]


class InStep:
    """contracts.ports.Engine on an event loop of its own around an AsyncEngine."""

    def __init__(self, engine: AsyncEngine, runner: asyncio.Runner) -> None:
        self._engine, self._runner = engine, runner

    def load_adapter(self, adapter: Adapter) -> None:
        self._runner.run(self._engine.load_adapter(adapter))

    def drop_adapter(self, policy_version: int) -> None:
        self._runner.run(self._engine.drop_adapter(policy_version))

    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        return self._runner.run(self._engine.generate(requests, policy_version, deadline_s))

    def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        return self._runner.run(self._engine.score(tokens_P, policy_version))

    def close(self) -> None:
        self._engine.close()
        self._runner.close()


def of_the_user(name: str) -> EngineMaker:
    """As a worker starts it, on a tiny Llama in float32."""

    def make(folder: Path) -> Engine:
        tiny_llama().save_pretrained(folder)
        settings = ActorSettings(engine=name, device="cpu", dtype="float32", torch_threads=1)
        runner, needs = asyncio.Runner(), EngineNeeds(max_lora_rank=4, max_model_len=512)
        return InStep(runner.run(start_engine(settings, folder, tiny_tokenizer(), needs)), runner)

    return make


EXAMPLE = Path(__file__).parents[2] / "examples" / "my_engine.py"


def scripted(_: Path) -> Engine:
    lengths = {"min_response_tokens": 2, "max_response_tokens": 9}
    return ScriptedEngine(tiny_tokenizer(), ScriptedSettings().model_copy(update=lengths))


def merged(_: Path) -> Engine:
    return TransformersEngine(tiny_llama(), tiny_tokenizer(), "merged", max_batch_rows=16)


def side(_: Path) -> Engine:
    return TransformersEngine(tiny_llama(), tiny_tokenizer(), "unmerged", max_batch_rows=5)


def merged_bfloat16(_: Path) -> Engine:
    return TransformersEngine(bfloat16_llama(0), tiny_tokenizer(), "merged", max_batch_rows=16)


def side_bfloat16(_: Path) -> Engine:
    return TransformersEngine(bfloat16_llama(0), tiny_tokenizer(), "unmerged", max_batch_rows=5)


OURS: dict[str, EngineMaker] = {
    "scripted": scripted,
    "merged": merged,
    "unmerged": side,
    "merged_bfloat16": merged_bfloat16,
    "side_bfloat16": side_bfloat16,
    "example": of_the_user(f"{EXAMPLE}:plain"),
}
YOURS = os.environ.get("MEMR_ENGINE")
ENGINES = {YOURS: of_the_user(YOURS)} if YOURS else OURS


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    built: Any = ENGINES[request.param](tmp_path)
    for version in (0, 1, 2):
        built.load_adapter(tiny_adapter(version, tiny_llama()))
    yield built
    if isinstance(built, InStep):
        built.close()


def tolerance(engine: Engine) -> float:
    """Of one log-prob computed with and without a cache, in nats; bfloat16 rounds at the size of the batch."""
    model = getattr(engine, "_model", None)
    return 0.3 if getattr(model, "dtype", None) is torch.bfloat16 else 1e-4


def flat(results: list[list[Generation]]) -> list[tuple[list[int], str]]:
    return [(g.tokens_T.tolist(), g.finish_reason.value) for group in results for g in group]


REQUESTS = [
    ask("what is 2 + 3?", (11, 12, 13)),
    ask("4 - 1 =", (21, 22, 23, 24)),
    ask("a longer question, 7 * 8?", (31,)),
]


def test_one_generation_per_seed_in_the_order_of_requests(engine: Engine) -> None:
    assert [len(group) for group in engine.generate(REQUESTS, 1, 60.0)] == [3, 4, 1]


def test_no_requests_give_no_generations(engine: Engine) -> None:
    assert engine.generate([], 1, 60.0) == []


def test_equal_requests_with_equal_seeds_give_equal_samples(engine: Engine) -> None:
    assert flat(engine.generate(REQUESTS, 1, 60.0)) == flat(engine.generate(REQUESTS, 1, 60.0))


def test_a_request_alone_samples_what_it_samples_in_company(engine: Engine) -> None:
    together = engine.generate(REQUESTS, 1, 60.0)
    alone = [engine.generate([request], 1, 60.0)[0] for request in REQUESTS]
    assert flat(together) == flat(alone)


def test_different_seeds_differ(engine: Engine) -> None:
    request = ask("say something", range(16))
    assert len({tuple(g.tokens_T.tolist()) for g in engine.generate([request], 1, 60.0)[0]}) > 4


def test_records_are_aligned_and_typed_and_logprobs_are_negative(engine: Engine) -> None:
    for generation in (g for group in engine.generate(REQUESTS, 1, 60.0) for g in group):
        assert generation.tokens_T.dtype == np.int32
        assert generation.logprobs_T.dtype == np.float32
        assert generation.tokens_T.shape == generation.logprobs_T.shape
        assert (generation.logprobs_T <= 0).all()


def test_stop_ends_with_an_end_token_and_length_is_full_without_one(engine: Engine) -> None:
    eos = tiny_tokenizer().eos_token_ids
    generations = [g for group in engine.generate([ask("1 + 1", range(24), 6)], 1, 60.0) for g in group]
    reasons = {generation.finish_reason for generation in generations}
    assert FinishReason.LENGTH in reasons
    for generation in generations:
        body = generation.tokens_T.tolist()
        if generation.finish_reason is FinishReason.STOP:
            assert body[-1] in eos
        else:
            assert len(body) == 6
            assert body[-1] not in eos
        assert not eos & set(body[:-1])


def test_each_request_keeps_its_own_limit(engine: Engine) -> None:
    results = engine.generate([ask("x", (1,), 1), ask("y", (2,), 7)], 1, 60.0)
    assert len(results[0][0].tokens_T) == 1
    assert len(results[1][0].tokens_T) <= 7


def test_greedy_ignores_the_seed(engine: Engine) -> None:
    generations = engine.generate([ask("9 - 3", (1, 2), temperature=0.0)], 1, 60.0)[0]
    assert len(generations[0].tokens_T) > 0
    assert generations[0].tokens_T.tolist() == generations[1].tokens_T.tolist()


def test_scored_logprobs_are_the_sampled_ones(engine: Engine) -> None:
    for request in REQUESTS:
        for generation in engine.generate([request], 2, 60.0)[0]:
            whole = np.concatenate([request.prompt_P, generation.tokens_T])
            scored = engine.score(whole, 2)
            assert scored.shape == whole.shape
            assert scored[0] == 0
            np.testing.assert_allclose(scored[len(request.prompt_P) :], generation.logprobs_T, atol=tolerance(engine))


def test_unknown_version_is_refused_and_the_held_ones_are_named(engine: Engine) -> None:
    with pytest.raises(AdapterMissingError, match=r"\[0, 1, 2\], not version 7"):
        engine.generate(REQUESTS, 7, 60.0)
    with pytest.raises(AdapterMissingError, match="not version 7"):
        engine.score(np.arange(4, dtype=np.int32), 7)


def test_a_dropped_version_is_gone_and_dropping_it_again_is_harmless(engine: Engine) -> None:
    engine.generate(REQUESTS[:1], 1, 60.0)
    engine.drop_adapter(1)
    engine.drop_adapter(1)
    with pytest.raises(AdapterMissingError):
        engine.generate(REQUESTS, 1, 60.0)


def test_loading_twice_is_a_no_op(engine: Engine) -> None:
    before = flat(engine.generate(REQUESTS, 1, 60.0))
    engine.load_adapter(tiny_adapter(1, tiny_llama()))
    assert flat(engine.generate(REQUESTS, 1, 60.0)) == before


def test_swapping_versions_back_and_forth_changes_nothing(engine: Engine) -> None:
    first = {version: engine.score(REQUESTS[0].prompt_P, version) for version in (0, 1, 2)}
    for version in (2, 0, 1, 0, 2, 1):
        np.testing.assert_array_equal(engine.score(REQUESTS[0].prompt_P, version), first[version])
    assert np.abs(first[1] - first[2]).max() > 1e-3
