"""Ports: what one part asks of another without knowing which implementation answers."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Adapter
from contracts.problem import ChatMessage, Problem, Sampling
from contracts.reports import StepReport
from contracts.rollout import FinishReason, ScoredGroup, TurnOutcome
from contracts.verdict import Verdict


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest:
    """Continue one token sequence `num_samples` times.

    prompt_P: int32. seeds: one per sample; equal requests with equal seeds give equal samples.
    """

    prompt_P: NDArray[np.int32]
    seeds: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One sampled continuation. tokens_T int32 (end token included), logprobs_T float32 at the sampling temperature."""

    tokens_T: NDArray[np.int32]
    logprobs_T: NDArray[np.float32]
    finish_reason: FinishReason


class Engine(Protocol):
    """Generates text with one of several adapters. Not thread-safe: one owner calls it."""

    def load_adapter(self, adapter: Adapter) -> None:
        """Make this version available; loading a version twice is a no-op."""

    def drop_adapter(self, policy_version: int) -> None: ...

    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        """One list of generations per request, in order. Raises AdapterMissingError, EngineError."""

    def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        """Log-prob of each token given those before it, temperature 1; entry 0 is 0."""


class AsyncEngine(Protocol):
    """An engine on an event loop. What a worker talks to: vLLM as it is, the others behind `OneThreadEngine`."""

    @property
    def continuous(self) -> bool:
        """True: requests of different calls decode together. False: a call is a batch, the next one waits."""

    async def load_adapter(self, adapter: Adapter) -> None:
        """Make this version available; loading a version twice is a no-op."""

    async def drop_adapter(self, policy_version: int) -> None: ...

    async def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        """One list of generations per request, in order. Raises AdapterMissingError, EngineError."""

    async def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        """Log-prob of each token given those before it, temperature 1; entry 0 is 0."""

    def close(self) -> None:
        """End the engine's threads and processes."""


class Tokenizer(Protocol):
    """The slice of a tokenizer that workers and tasks need."""

    eos_token_ids: frozenset[int]
    pad_token_id: int
    opening: str
    """What the generation prompt has already written of the policy's turn (`<think>`): it belongs before the turn's text."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides how a chat becomes tokens; the same on learner, workers and resume."""

    def encode(self, text: str) -> NDArray[np.int32]:
        """The text as the policy might write it, without anything that begins or ends it."""

    def encode_chat(self, messages: Sequence[ChatMessage]) -> NDArray[np.int32]:
        """Prompt token ids, generation prompt included."""

    def encode_reply(self, text: str) -> NDArray[np.int32]:
        """An environment's message between two policy turns, with the generation prompt that follows it."""

    def decode(self, tokens: NDArray[np.int32]) -> str:
        """Text without the tokens that begin, end and pad texts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One final answer to judge, with what length-based rewards need."""

    problem: Problem
    text: str
    num_tokens: int
    max_new_tokens: int
    truncated: bool


class Verifier(Protocol):
    """Judges answers; never raises for what an answer contains."""

    def verify(self, answers: Sequence[Answer]) -> list[Verdict]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EnvironmentReply:
    """What an environment answers to one policy turn; `text` is shown to the policy when the outcome is CONTINUE."""

    outcome: TurnOutcome
    text: str = ""


class Environment(Protocol):
    """The world of one rollout. A single question is the environment that says DONE after the first turn."""

    def step(self, policy_text: str) -> "EnvironmentReply | Awaitable[EnvironmentReply]":
        """May be async. `close()`, sync or async, is called at the rollout's end where there is one."""


class Task(Protocol):
    """A source of problems. Pure: the same index gives the same problem everywhere."""

    def train_problem(self, index: int) -> Problem:
        """The index-th problem of the training stream, index >= 0; wraps or extends as the task says."""

    @property
    def num_train(self) -> int | None:
        """Distinct training problems, None when the generator is endless."""

    def held_out(self, n: int) -> list[Problem]:
        """The first n held-out problems, fewer where there are fewer; none of them ever appears in the training stream."""

    def environment(self, problem: Problem) -> Environment:
        """A fresh environment for one rollout of this problem."""


class TextEncoder(Protocol):
    """Text to unit vectors."""

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Hash of the encoder's weights and settings, pinned in every snapshot."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts), dimension] float32, rows of length 1."""


class VectorIndex(Protocol):
    """Exact inner-product search over unit vectors with stable integer ids."""

    def add(self, ids_N: NDArray[np.int64], vectors_ND: NDArray[np.float32]) -> None: ...

    def remove(self, ids_N: NDArray[np.int64]) -> None: ...

    def search(self, queries_QD: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """ids_QK (-1 where fewer than k are stored) and cosines_QK (0 there), best first, ties by lower id."""

    def __len__(self) -> int: ...


class PolicyLearner(Protocol):
    """Consumes scored groups, publishes adapters."""

    @property
    def policy_version(self) -> int: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided for this model at the start and is good to know: a line each."""

    def step(self, groups: Sequence[ScoredGroup]) -> StepReport: ...

    def publish(self) -> Adapter: ...

    def save(self, directory: Path) -> None: ...

    def restore(self, directory: Path) -> None: ...

    def roll_back(self, directory: Path) -> None:
        """An earlier checkpoint's weights under the present version."""
