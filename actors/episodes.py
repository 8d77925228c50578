"""The turns of rollouts: generate, let the environment answer, append, until every rollout has ended.

Consumes leases and an engine; produces finished records without verdicts. One question is the case of an
environment that says DONE after the first turn. All live rollouts of a turn go to the engine in one call.

P prompt tokens, T everything after the prompt. A rollout's token budget counts what the policy wrote, in all turns.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from actors.seeds import rollout_seed, turn_seed
from contracts.ports import AsyncEngine, Environment, EnvironmentReply, Generation, GenerationRequest, Task, Tokenizer
from contracts.problem import Lease, Sampling
from contracts.rollout import FinishReason, TurnOutcome


@dataclass(slots=True, eq=False)
class Episode:
    """One rollout while it grows. `pieces`: (tokens, log-probs, written by the policy) in order."""

    lease: Lease
    index: int
    prompt_P: NDArray[np.int32]
    environment: Environment
    pieces: list[tuple[NDArray[np.int32], NDArray[np.float32], bool]] = field(default_factory=list)
    turn_ends: list[int] = field(default_factory=list)
    outcomes: list[TurnOutcome] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    final_text: str = ""
    fault: str = ""
    """Why the environment gave no reply."""

    @property
    def rollout_id(self) -> str:
        return f"{self.lease.lease_id}/{self.lease.attempt}/{self.index}"

    @property
    def seed(self) -> int:
        lease = self.lease
        return rollout_seed(lease.run_seed, lease.problem.problem_id, lease.lease_id, self.index, lease.attempt)

    @property
    def num_tokens(self) -> int:
        return sum(len(tokens) for tokens, _, _ in self.pieces)

    @property
    def num_policy_tokens(self) -> int:
        return sum(len(tokens) for tokens, _, is_policy in self.pieces if is_policy)

    @property
    def budget(self) -> int:
        """Tokens the policy may still write."""
        return self.lease.sampling.max_new_tokens - self.num_policy_tokens

    @property
    def tokens(self) -> NDArray[np.int32]:
        return np.concatenate([np.zeros(0, np.int32), *(tokens for tokens, _, _ in self.pieces)])

    @property
    def logprobs(self) -> NDArray[np.float32]:
        return np.concatenate([np.zeros(0, np.float32), *(logprobs for _, logprobs, _ in self.pieces)])

    @property
    def policy_mask(self) -> NDArray[np.bool_]:
        return np.concatenate([np.zeros(0, np.bool_), *(np.full(len(t), mine) for t, _, mine in self.pieces)])


def open_episodes(lease: Lease, task: Task, tokenizer: Tokenizer) -> list[Episode]:
    """The lease's rollouts before their first token."""
    prompt_P = tokenizer.encode_chat(lease.problem.messages)
    return [Episode(lease, i, prompt_P, task.environment(lease.problem)) for i in range(lease.num_rollouts)]


async def play(
    groups: Sequence[Sequence[Episode]],
    engine: AsyncEngine,
    tokenizer: Tokenizer,
    policy_version: int,
    deadline_s: float,
    clock: Callable[[], float],
) -> None:
    """Run every episode to its end, in place. Raises what the engine raises."""
    ends_at = clock() + deadline_s
    live = [list(group) for group in groups]
    while live:
        requests = [_request(batch) for batch in live]
        results = await engine.generate(requests, policy_version, max(0.0, ends_at - clock()))
        await asyncio.gather(
            *(
                _take_turn(episode, generation, tokenizer)
                for batch, generations in zip(live, results, strict=True)
                for episode, generation in zip(batch, generations, strict=True)
            )
        )
        live = [[episode] for batch in live for episode in batch if episode.finish_reason is None]


def _request(batch: Sequence[Episode]) -> GenerationRequest:
    """Episodes of one batch share their tokens so far: a whole group on turn one, a single rollout afterwards."""
    first = batch[0]
    sampling = Sampling(first.lease.sampling.temperature, first.budget)
    seeds = tuple(turn_seed(episode.seed, len(episode.outcomes)) for episode in batch)
    return GenerationRequest(np.concatenate([first.prompt_P, first.tokens]), seeds, sampling)


async def _take_turn(episode: Episode, generation: Generation, tokenizer: Tokenizer) -> None:
    episode.pieces.append((generation.tokens_T, generation.logprobs_T, True))
    episode.turn_ends.append(episode.num_tokens)
    episode.final_text = tokenizer.opening + tokenizer.decode(generation.tokens_T)
    finite = np.isfinite(generation.logprobs_T).all()
    if not finite or not generation.finish_reason.trainable:
        episode.outcomes.append(TurnOutcome.FAULT)
        episode.finish_reason = generation.finish_reason if finite else FinishReason.ERROR
        return
    reply = await _step(episode)
    is_over = reply.outcome is not TurnOutcome.CONTINUE
    out_of_tokens = generation.finish_reason is FinishReason.LENGTH or episode.budget == 0
    episode.outcomes.append(TurnOutcome.LIMIT if out_of_tokens and not is_over else reply.outcome)
    if is_over:
        episode.finish_reason = generation.finish_reason
    elif out_of_tokens:
        episode.finish_reason = FinishReason.LENGTH
    else:
        _append_reply(episode, reply, tokenizer)


async def _step(episode: Episode) -> EnvironmentReply:
    """A fault of the environment ends this rollout alone. Users' environments keep their deadline themselves
    (tasks/environment_host.py); those that step here are memr's own."""
    try:
        given = episode.environment.step(episode.final_text)
        reply = await given if isinstance(given, Awaitable) else given
    except Exception as error:  # noqa: BLE001  becomes data
        reply = EnvironmentReply(TurnOutcome.FAULT, f"{type(error).__name__}: {error}")
    if reply.outcome is TurnOutcome.FAULT:
        episode.fault = reply.text
    return reply


def close_episodes(episodes: Iterable[Episode]) -> None:
    """Tell environments that want to hear it that their rollouts are over. Never raises for what they do."""
    for episode in episodes:
        close = getattr(episode.environment, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()


def _append_reply(episode: Episode, reply: EnvironmentReply, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode_reply(reply.text)
    episode.pieces.append((tokens, np.zeros(len(tokens), np.float32), False))
