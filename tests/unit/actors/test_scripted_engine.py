"""The engine without a model: what it writes, how long it takes, how it fails."""

import contextlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from actors.config import ScriptedSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.engines.scripted.scripted_answers import arithmetic_answer, wrong_answer
from actors.engines.scripted.scripted_engine import ScriptedEngine
from contracts.errors import EngineError
from contracts.ports import Generation, GenerationRequest
from contracts.problem import Sampling
from contracts.rollout import FinishReason
from tests.fakes import make_adapter

TOKENIZER = CharTokenizer(ScriptedSettings().alphabet)


def make_engine(**settings: Any) -> tuple[ScriptedEngine, list[float]]:
    """settings: of [actors.scripted], its constants included. Also returns the seconds that the engine slept, call by call."""
    slept: list[float] = []
    engine = ScriptedEngine(TOKENIZER, ScriptedSettings().model_copy(update=settings), sleep=slept.append)
    for version in range(4):
        engine.load_adapter(make_adapter(version))
    return engine, slept


def ask(
    question: str, samples: int, limit: int = 60, temperature: float = 1.0, first_seed: int = 0
) -> GenerationRequest:
    prompt = TOKENIZER.encode_chat([{"role": "user", "content": question}])
    return GenerationRequest(prompt, tuple(range(first_seed, first_seed + samples)), Sampling(temperature, limit))


def texts(generations: list[Generation]) -> list[str]:
    return [TOKENIZER.decode(g.tokens_T) for g in generations]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("what is 3 + 4?", "7"),
        ("3+4=7\n10 - 12 =", "-2"),
        ("6 * 7", "42"),
        ("-3 + -4", "-7"),
        ("no question at all", None),
    ],
)
def test_the_script_answers_the_last_operation(prompt: str, answer: str | None) -> None:
    assert arithmetic_answer(prompt) == answer


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_a_wrong_answer_is_another_number(draw: float) -> None:
    assert wrong_answer("7", draw) != "7"
    assert wrong_answer(None, draw).isdigit()


def test_answers_are_right_as_often_as_the_script_says_and_more_often_at_later_versions() -> None:
    """4000 draws: the standard deviation of the share is below 0.008."""
    engine, _ = make_engine(accuracy=0.3, accuracy_per_version=0.2)
    request = ask("12 + 30", 4000)
    for version, expected in ((0, 0.3), (1, 0.5), (3, 0.9)):
        answers = texts(engine.generate([request], version, 60.0)[0])
        share = sum(text.split()[-1] == "42" for text in answers) / 4000
        assert share == pytest.approx(expected, abs=0.035)


def test_lengths_fill_their_range() -> None:
    engine, _ = make_engine(min_response_tokens=5, max_response_tokens=9, accuracy=1.0)
    generations = engine.generate([ask("1 + 1", 200)], 0, 60.0)[0]
    assert {len(g.tokens_T) - 1 for g in generations} == {5, 6, 7, 8, 9}


def test_greedy_accuracy_follows_the_script_over_questions() -> None:
    engine, _ = make_engine(accuracy=0.5)
    requests = [ask(f"{i} + {j}", 1, temperature=0.0) for i in range(20) for j in range(20)]
    right = sum(
        texts(group)[0].split()[-1] == str(i // 20 + i % 20)
        for i, group in enumerate(engine.generate(requests, 0, 60.0))
    )
    assert 160 < right < 240


def test_latency_is_per_call_and_per_step_not_per_sample() -> None:
    engine, slept = make_engine(
        latency_per_request_s=2.0, latency_per_token_s=0.5, min_response_tokens=3, max_response_tokens=3
    )
    [generations] = engine.generate([ask("1 + 1", 8)], 0, 60.0)
    longest = max(len(g.tokens_T) for g in generations)
    assert slept == [2.0 + 0.5 * longest]


def test_what_the_deadline_cuts_off_times_out_with_the_tokens_it_has() -> None:
    engine, slept = make_engine(latency_per_token_s=1.0, min_response_tokens=2, max_response_tokens=12, accuracy=1.0)
    [generations] = engine.generate([ask("1 + 1", 40)], 0, 6.0)
    assert slept == [6.0]
    done = [g for g in generations if g.finish_reason is FinishReason.STOP]
    late = [g for g in generations if g.finish_reason is FinishReason.TIMEOUT]
    assert len(done) + len(late) == 40
    assert all(len(g.tokens_T) <= 6 for g in done)
    assert {len(g.tokens_T) for g in late} == {6}


def test_a_scripted_failure_is_an_engine_error_and_a_retry_meets_another_fate() -> None:
    engine, _ = make_engine(faults={"raise": 0.5})
    failed = 0
    for seed in range(40):
        with contextlib.suppress(EngineError):
            engine.generate([ask("1 + 1", 1, first_seed=seed)], 0, 60.0)
            failed -= 1
        failed += 1
    assert 8 < failed < 32


def test_a_hanging_call_sleeps_whatever_the_deadline() -> None:
    engine, slept = make_engine(faults={"hang": 1.0})
    engine.generate([ask("1 + 1", 1)], 0, 5.0)
    assert slept == [3600.0]


@pytest.mark.parametrize(("fault", "reason"), [("abort", FinishReason.ABORT), ("timeout", FinishReason.TIMEOUT)])
def test_single_samples_fail_without_their_neighbours(fault: str, reason: FinishReason) -> None:
    engine, _ = make_engine(faults={fault: 0.5})
    [generations] = engine.generate([ask("1 + 1", 100)], 0, 60.0)
    failed = sum(g.finish_reason is reason for g in generations)
    assert 25 < failed < 75
    assert sum(g.finish_reason is FinishReason.STOP for g in generations) == 100 - failed


def test_a_log_prob_that_is_no_number_is_the_first_of_a_sample_that_ends_as_any_other() -> None:
    engine, _ = make_engine(faults={"nan": 0.5})
    [generations] = engine.generate([ask("1 + 1", 100)], 0, 60.0)
    assert {g.finish_reason for g in generations} == {FinishReason.STOP}
    spoilt = [g for g in generations if np.isnan(g.logprobs_T).any()]
    assert 25 < len(spoilt) < 75
    assert all(np.flatnonzero(np.isnan(g.logprobs_T)).tolist() == [0] for g in spoilt)


def test_the_scripted_engine_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, actors.load, actors.rollout_worker; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_characters_round_trip_and_strangers_become_unknown() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a + b = 3\n")) == "a + b = 3\n"
    assert TOKENIZER.decode(TOKENIZER.encode("1 €")) == "1 \ufffd"
    assert TOKENIZER.decode(TOKENIZER.encode("x")[[0, 0]]) == "xx"


def test_end_and_pad_are_not_text() -> None:
    assert TOKENIZER.decode(np.array([0, 5, 1], np.int32)) == TOKENIZER.decode(np.array([5], np.int32))


def test_a_character_twice_in_the_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['a'\] more than once"):
        CharTokenizer("aba")


def test_the_fingerprint_tells_alphabets_apart() -> None:
    assert CharTokenizer("ab").fingerprint != CharTokenizer("ba").fingerprint
