"""The transformers engine against plain forwards of the same tokens, and what a batch must not change."""

from typing import Literal

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from actors.engines.torch_decoding.decoder_check import choose_decoder
from actors.engines.torch_decoding.decoders import ExpandedDecoder, SharedPrefixDecoder
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from contracts.errors import EngineError
from contracts.ports import Generation, GenerationRequest
from contracts.rollout import FinishReason
from tests.tiny_policy import (
    adapter_of,
    ask,
    lora_tensors,
    reference_logprobs,
    tiny_adapter,
    tiny_llama,
    tiny_tokenizer,
)

Path = Literal["merged", "unmerged"]
PATHS: tuple[Path, ...] = ("merged", "unmerged")


def make_engine(path: Path = "merged", rows: int = 64, model: PreTrainedModel | None = None) -> TransformersEngine:
    engine = TransformersEngine(model or tiny_llama(), tiny_tokenizer(), path, max_batch_rows=rows)
    for version in (0, 1, 2):
        engine.load_adapter(tiny_adapter(version, tiny_llama()))
    return engine


def groups_of(count: int, samples: int, new: int = 40) -> list[GenerationRequest]:
    prompts = ["add " + "1 + " * index + "2 = ?" for index in range(count)]
    return [ask(prompt, range(100 * i, 100 * i + samples), new) for i, prompt in enumerate(prompts)]


def tokens_of(results: list[list[Generation]]) -> list[list[int]]:
    return [g.tokens_T.tolist() for group in results for g in group]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_those_of_a_plain_forward_with_lora(path: Path, temperature: float) -> None:
    model, tensors = tiny_llama(), lora_tensors(tiny_llama(), b_std=0.2, seed=1)
    engine = make_engine(path)
    requests = [ask("what is 3 + 4?", range(6), 40, temperature), ask("1 + 1", range(10, 15), 40, temperature)]
    for request, generations in zip(requests, engine.generate(requests, 1, 60.0), strict=True):
        for generation in generations:
            whole = np.concatenate([request.prompt_P, generation.tokens_T])
            expected = reference_logprobs(model, tensors, 2.0, whole, temperature)[len(request.prompt_P) :]
            np.testing.assert_allclose(generation.logprobs_T, expected, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_scores_are_those_of_a_plain_forward_with_lora(path: Path) -> None:
    tokens = tiny_tokenizer().encode("the learner scored this under version one")
    expected = reference_logprobs(tiny_llama(), lora_tensors(tiny_llama(), b_std=0.2, seed=1), 2.0, tokens)
    np.testing.assert_allclose(make_engine(path).score(tokens, 1), expected, atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_version_zero_is_the_base_model(path: Path) -> None:
    tokens = tiny_tokenizer().encode("nothing was learned yet")
    engine = make_engine(path)
    engine.score(tokens, 2)
    np.testing.assert_allclose(engine.score(tokens, 0), reference_logprobs(tiny_llama(), {}, 0.0, tokens), atol=1e-6)


def test_merged_and_side_sample_the_same_tokens() -> None:
    requests = groups_of(3, 4)
    assert tokens_of(make_engine("merged").generate(requests, 1, 60.0)) == tokens_of(
        make_engine("unmerged").generate(requests, 1, 60.0)
    )


def test_samples_do_not_depend_on_what_else_is_in_the_batch_nor_on_how_batches_are_cut() -> None:
    requests = groups_of(4, 9)
    whole = make_engine(rows=64).generate(requests, 1, 60.0)
    cut = make_engine(rows=7).generate(requests, 1, 60.0)
    reversed_order = make_engine(rows=16).generate(requests[::-1], 1, 60.0)[::-1]
    assert tokens_of(whole) == tokens_of(cut) == tokens_of(reversed_order)


def test_rows_that_finish_early_leave_without_disturbing_the_others() -> None:
    """Limits of 1 to 64 tokens in one batch: rows leave all the time; alone, nothing ever leaves."""
    requests = [ask(f"question {i}", range(10 * i, 10 * i + 1 + i % 3), 1 + 7 * (i % 10)) for i in range(20)]
    engine = make_engine()
    together = engine.generate(requests, 2, 60.0)
    for request, generations in zip(requests, together, strict=True):
        alone = engine.generate([request], 2, 60.0)[0]
        assert tokens_of([generations]) == tokens_of([alone])
        for one, other in zip(generations, alone, strict=True):
            np.testing.assert_allclose(one.logprobs_T, other.logprobs_T, atol=1e-4)


def test_many_seeds_draw_the_first_token_from_the_softmax() -> None:
    """Chi-square with tokens of under 10 expected draws pooled; 99.9 % point bounded by df + 4 sqrt(2 df) + 8."""
    engine, draws = make_engine(rows=512), 4096
    request = ask("2 + 2 =", range(draws), max_new_tokens=1, temperature=1.3)
    sampled = [int(g.tokens_T[0]) for g in engine.generate([request], 1, 60.0)[0]]
    tensors = lora_tensors(tiny_llama(), b_std=0.2, seed=1)
    vocabulary = tiny_tokenizer().vocab_size
    expected = np.array(
        [
            np.exp(reference_logprobs(tiny_llama(), tensors, 2.0, np.append(request.prompt_P, token), 1.3)[-1]) * draws
            for token in range(vocabulary)
        ]
    )
    observed = np.bincount(sampled, minlength=vocabulary)
    common = expected >= 10
    pairs = [*zip(observed[common], expected[common], strict=True), (observed[~common].sum(), expected[~common].sum())]
    statistic = sum((o - e) ** 2 / e for o, e in pairs)
    freedom = len(pairs) - 1
    assert freedom >= 5
    assert statistic < freedom + 4 * np.sqrt(2 * freedom) + 8


def test_swapping_versions_back_and_forth_gives_identical_samples() -> None:
    engine, requests = make_engine(), groups_of(2, 3)
    first = {version: tokens_of(engine.generate(requests, version, 60.0)) for version in (0, 1, 2)}
    assert first[0] != first[1] != first[2]
    for version in (2, 0, 1, 2):
        assert tokens_of(engine.generate(requests, version, 60.0)) == first[version]


def test_merging_leaves_a_tied_embedding_alone() -> None:
    model = tiny_llama(tied=True)
    tensors = {
        f"base_model.model.lm_head.lora_{letter}.weight": torch.full(shape, 0.1)
        for letter, shape in (("A", (4, 32)), ("B", (tiny_tokenizer().vocab_size, 4)))
    }
    embedding = model.model.embed_tokens.weight.detach().clone()
    engine = TransformersEngine(model, tiny_tokenizer(), "merged", 8)
    engine.load_adapter(adapter_of(1, tensors, targets=("lm_head",)))
    tokens = tiny_tokenizer().encode("tied")
    scored = engine.score(tokens, 1)
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    np.testing.assert_allclose(scored, reference_logprobs(tiny_llama(tied=True), tensors, 2.0, tokens), atol=1e-4)


class TickingClock:
    """One second per look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_rows_unfinished_at_the_deadline_time_out_with_the_tokens_they_have() -> None:
    engine = TransformersEngine(tiny_llama(), tiny_tokenizer(), "merged", 4, clock=TickingClock())
    engine.load_adapter(tiny_adapter(0, tiny_llama()))
    first, second = engine.generate([ask("1", range(4), 200), ask("22", range(4, 8), 200)], 0, 6.0)
    unfinished = [g for g in first if g.finish_reason is not FinishReason.STOP]
    assert unfinished
    assert {(g.finish_reason, len(g.tokens_T)) for g in unfinished} == {(FinishReason.TIMEOUT, 5)}
    assert [(g.finish_reason, len(g.tokens_T)) for g in second] == [(FinishReason.TIMEOUT, 0)] * 4


def test_a_damaged_model_is_an_engine_error_and_not_a_sample() -> None:
    model = tiny_llama()
    engine = make_engine(model=model)
    with torch.no_grad():
        model.lm_head.weight[3] = torch.nan
    with pytest.raises(EngineError, match="non-finite logits at token 0"):
        engine.generate(groups_of(1, 2), 0, 60.0)


def test_want_of_memory_while_decoding_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    def prefill(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    engine = make_engine()
    monkeypatch.setattr("actors.engines.torch_decoding.transformers_engine.prefill", prefill)
    with pytest.raises(EngineError, match=r"lower actors\.max_batch_rows"):
        engine.generate([ask("x", (1,))], 0, 60.0)


def test_another_failure_of_the_library_is_an_engine_error_without_advice_that_does_not_fit() -> None:
    engine = make_engine()
    beyond_vocabulary = GenerationRequest(np.array([10_000], np.int32), (1,), ask("x", (1,)).sampling)
    with pytest.raises(EngineError, match=r"decoding 1 rows failed: IndexError: index out of range[^;]*$"):
        engine.generate([beyond_vocabulary], 0, 60.0)


@pytest.mark.parametrize(("heads", "key_value_heads"), [(4, 4), (4, 2), (4, 1)])
def test_plain_attention_gets_the_shared_prompt_decoder(heads: int, key_value_heads: int) -> None:
    assert choose_decoder(tiny_llama(heads=heads, key_value_heads=key_value_heads)) is SharedPrefixDecoder


def test_architectures_with_attention_of_their_own_fall_back_and_agree_with_a_plain_forward() -> None:
    config = Gemma2Config(
        vocab_size=tiny_tokenizer().vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=6,
        initializer_range=0.3,
        pad_token_id=0,
    )
    windowed = Gemma2ForCausalLM(config)  # type: ignore[no-untyped-call]
    windowed.train(False)
    assert choose_decoder(windowed) is ExpandedDecoder
    tensors = lora_tensors(windowed, seed=3)
    engine = TransformersEngine(windowed, tiny_tokenizer(), "unmerged", 6)
    engine.load_adapter(adapter_of(1, tensors))
    request = ask("longer than the window of six", (1, 2, 3, 4), 12)
    for generation in engine.generate([request, ask("short", (5, 6))], 1, 60.0)[0]:
        whole = np.concatenate([request.prompt_P, generation.tokens_T])
        scored = engine.score(whole, 1)[len(request.prompt_P) :]
        np.testing.assert_allclose(generation.logprobs_T, scored, atol=1e-3)


def test_a_model_without_linear_targets_refuses_the_adapter() -> None:
    config = GPT2Config(vocab_size=98, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    gpt2 = GPT2LMHeadModel(config)  # type: ignore[no-untyped-call]
    engine = TransformersEngine(gpt2, tiny_tokenizer(), "unmerged", 4)
    with pytest.raises(ValueError, match="belong to no linear layer of this model"):
        engine.load_adapter(tiny_adapter(1, tiny_llama()))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_the_real_model_in_float32_agrees_with_a_plain_forward(path: Path, smollm2_dir: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    tensors = lora_tensors(model, r=16, b_std=0.002, seed=5)
    prompt = np.array([1, 4093, 198, 1780, 314, 216, 34, 1232, 216, 35, 47, 2], np.int32)
    engine = TransformersEngine(model, tiny_tokenizer(), path, 8)
    engine.load_adapter(adapter_of(1, tensors, r=16))
    request = GenerationRequest(prompt, (1, 2, 3), ask("x", (1,), 8, 0.9).sampling)
    generations = engine.generate([request, GenerationRequest(prompt[4:], (4, 5), request.sampling)], 1, 120.0)[0]
    plain = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    for generation in generations:
        whole = np.concatenate([prompt, generation.tokens_T])
        expected = reference_logprobs(plain, tensors, 2.0, whole, 0.9)[len(prompt) :]
        np.testing.assert_allclose(generation.logprobs_T, expected, atol=1e-4)
