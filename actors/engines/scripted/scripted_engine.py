"""The engine without a model: text, lengths, latency and faults by script and seed.

The whole system runs on it in seconds. Every draw comes from the rollout's own seed, the script's seed and the
policy version, so equal leases give equal rollouts, and a retry (another attempt, another seed) meets another
fate. Latency is a plain sleep, which releases the interpreter: run `generate` on a thread to overlap workers.

Simplified: log-probs are a fixed function of (previous token, token, version), which `score` computes again.
"""

import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from actors.config import ScriptedSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.engines.scripted.scripted_answers import AnswerScript, arithmetic_answer, wrong_answer
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError, EngineError
from contracts.ports import Generation, GenerationRequest
from contracts.rollout import FinishReason


class ScriptedEngine:
    """contracts.ports.Engine. A right answer comes with probability accuracy + accuracy_per_version x version."""

    def __init__(
        self,
        tokenizer: CharTokenizer,
        settings: ScriptedSettings,
        answer: AnswerScript = arithmetic_answer,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._answer = answer
        self._sleep = sleep
        self._versions: set[int] = set()

    def load_adapter(self, adapter: Adapter) -> None:
        self._versions.add(adapter.manifest.policy_version)

    def drop_adapter(self, policy_version: int) -> None:
        self._versions.discard(policy_version)

    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        """What the latency leaves unfinished at the deadline ends as TIMEOUT."""
        self._check(policy_version)
        results = [[self._sample(request, seed, policy_version) for seed in request.seeds] for request in requests]
        if not requests:
            return results
        self._draw_call_faults(requests[0], policy_version)
        longest = max((len(g.tokens_T) for group in results for g in group), default=0)
        latency_s = self._settings.latency_per_request_s + longest * self._settings.latency_per_token_s
        if latency_s > 0:
            self._sleep(min(latency_s, deadline_s))
        if latency_s <= deadline_s:
            return results
        steps = self._steps_until(deadline_s)
        return [[_cut(generation, steps, FinishReason.TIMEOUT) for generation in group] for group in results]

    def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        self._check(policy_version)
        return _logprobs(tokens_P[:-1], tokens_P[1:], policy_version, leading=1)

    def _check(self, policy_version: int) -> None:
        if policy_version not in self._versions:
            raise AdapterMissingError(
                f"engine holds adapters {sorted(self._versions)}, not version {policy_version}; adopt it first"
            )

    def _draw_call_faults(self, request: GenerationRequest, policy_version: int) -> None:
        """Raises EngineError, or sleeps, as often as the script says."""
        settings = self._settings
        draws = self._draws(request.seeds[0], policy_version, stream=1)
        if draws.random() < settings.fault("raise"):
            raise EngineError(
                f"scripted fault: generate raised (actors.scripted.faults.raise {settings.fault('raise')})"
            )
        if draws.random() < settings.fault("hang"):
            self._sleep(settings.hang_s)

    def _steps_until(self, seconds: float) -> int:
        per_token_s = self._settings.latency_per_token_s
        return int((seconds - self._settings.latency_per_request_s) / per_token_s) if per_token_s > 0 else 0

    def _sample(self, request: GenerationRequest, seed: int, policy_version: int) -> Generation:
        greedy = request.sampling.temperature == 0  # one answer per prompt, whatever the seed
        draws = self._draws(zlib.crc32(request.prompt_P.tobytes()) if greedy else seed, policy_version, stream=0)
        text = self._text(request, policy_version, draws)
        whole = np.append(self._tokenizer.encode(text), min(self._tokenizer.eos_token_ids)).astype(np.int32)
        limit = request.sampling.max_new_tokens
        reason = FinishReason.STOP if len(whole) <= limit else FinishReason.LENGTH
        tokens_T = whole[:limit]
        previous = np.concatenate([request.prompt_P[-1:], tokens_T[:-1]])
        generation = Generation(tokens_T, _logprobs(previous, tokens_T, policy_version), reason)
        fault, is_nan = draws.random(2)
        abort, timeout = self._settings.fault("abort"), self._settings.fault("timeout")
        if is_nan < self._settings.fault("nan"):
            generation.logprobs_T[:1] = np.nan
        if fault < abort:
            return _cut(generation, len(tokens_T) // 2, FinishReason.ABORT)
        if fault < abort + timeout:
            return _cut(generation, len(tokens_T) // 2, FinishReason.TIMEOUT)
        return generation

    def _text(self, request: GenerationRequest, policy_version: int, draws: np.random.Generator) -> str:
        settings = self._settings
        length = int(draws.integers(settings.min_response_tokens, settings.max_response_tokens + 1))
        right = self._answer(self._tokenizer.decode(request.prompt_P))
        accuracy = min(1.0, settings.accuracy + settings.accuracy_per_version * policy_version)
        is_right, which, letter = draws.random(3)
        answer = right if right is not None and is_right < accuracy else wrong_answer(right, which)
        filler = "abcdefghij"[int(letter * 10)] * max(0, length - len(answer) - 1)
        return f"{filler} {answer}" if filler else answer

    def _draws(self, seed: int, policy_version: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([seed, self._settings.seed, policy_version, stream])


def _cut(generation: Generation, steps: int, reason: FinishReason) -> Generation:
    """The first `steps` tokens, ended by `reason`; a generation that was done by then is left alone."""
    if len(generation.tokens_T) <= steps:
        return generation
    steps = max(0, steps)
    return Generation(generation.tokens_T[:steps], generation.logprobs_T[:steps], reason)


def _logprobs(
    previous_T: NDArray[np.int32], tokens_T: NDArray[np.int32], policy_version: int, leading: int = 0
) -> NDArray[np.float32]:
    """Values in (-1.05, -0.05], after `leading` zeros."""
    mixed = (previous_T.astype(np.int64) * 31 + tokens_T * 17 + policy_version * 7) % 101
    logprobs = np.zeros(leading + len(tokens_T), np.float32)
    logprobs[leading:] = -0.05 - mixed / 101
    return logprobs
