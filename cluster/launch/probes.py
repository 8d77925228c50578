"""The token sequences that learner and engines score alike, fixed for a run.

    the task's problems -> its shortest and its longest prompt, a chat of many turns, a shuffle of that chat's tokens

Short and long, likely and unlikely text: a fault that shows on one kind of them alone is seen, and together they give a few
hundred tokens. The longest may be as long as a prompt of the run, but never costs more than a share of an update.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.config.run_config import RunConfig
from contracts.ports import Task, Tokenizer
from contracts.problem import ChatMessage, Problem

MAX_TOKENS = 2048
"""Of the longest probe."""

MIN_TOKENS = 64
"""The longest probe may have these whatever an update costs."""

UPDATE_SHARE = 64
"""The longest probe has at most one of so many of an update's tokens: read twice, once in float32, it then costs a few per
cent of the update."""

SHUFFLED_TOKENS = 32
NUM_PROMPTS = 32
_SEED = 20


def probe_sequences(config: RunConfig, task: Task, tokenizer: Tokenizer) -> tuple[NDArray[np.int32], ...]:
    """int32 [P] each; the first and the third differ in length, and none is longer than a prompt may be."""
    limit = longest_probe(config)
    problems = [task.train_problem(i) for i in range(NUM_PROMPTS)]
    prompts = sorted((tokenizer.encode_chat(p.messages)[:limit] for p in problems), key=len)
    chat_P = _long_chat(problems, tokenizer, limit)
    shuffled_P = np.random.default_rng(_SEED).permutation(chat_P)[:SHUFFLED_TOKENS]
    return prompts[0], prompts[-1], chat_P, shuffled_P


def longest_probe(config: RunConfig) -> int:
    """Tokens of the longest probe."""
    update_tokens = config.cluster.groups_per_batch * config.actors.rollouts_per_group * config.actors.max_new_tokens
    # An engine scores a probe and its whole answer with one token to spare.
    room = max(2, config.task.max_prompt_tokens - 1)
    return min(MAX_TOKENS, room, max(MIN_TOKENS, update_tokens // UPDATE_SHARE))


def _long_chat(problems: Sequence[Problem], tokenizer: Tokenizer, limit: int) -> NDArray[np.int32]:
    """The longest chat of several problems and their answers that begins within the limit, cut there."""
    tokens_P = np.zeros(0, np.int32)
    for messages in _growing(problems):
        tokens_P = tokenizer.encode_chat(messages)
        if len(tokens_P) >= limit:
            break
    return tokens_P[:limit].astype(np.int32)


def _growing(problems: Sequence[Problem]) -> Iterator[list[ChatMessage]]:
    messages = list(problems[0].messages)
    yield messages
    for before, problem in pairwise(problems):
        messages = [*messages, {"role": "assistant", "content": before.answer or "?"}, problem.messages[-1]]
        yield messages
