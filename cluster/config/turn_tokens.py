"""How many tokens one rollout may hold: what the policy writes in all of its turns, and what an environment replies. Pure.

actors.max_new_tokens bounds what the policy writes, over all turns together. Replies come on top: the engine needs room for
them, and log, buffer and memory keep them. Without a tokenizer there is a bound alone, a token for each character.
"""

from cluster.config.run_config import RunConfig
from tasks.environment import TRY_AGAIN

FRAME_CHARACTERS = 20
"""What a chat template puts around a reply, in tokens at most: ends of turns, names of roles, line breaks."""


def own_environment(config: RunConfig) -> bool:
    """Whether the task is code of the user's, whose environment may reply anything: only a started task says whether it has
    one."""
    return ":" in config.task.kind


def most_replies(config: RunConfig) -> int:
    """Of memr's own environment in one rollout."""
    return config.task.max_turns - 1 if config.task.environment == "retry" else 0


def most_reply_tokens(config: RunConfig) -> int:
    """A bound for one rollout without a tokenizer, on the large side. An environment of the user's own counts as much as the
    policy writes, which is the room that an engine gives it (context_budget.py)."""
    unknown = config.actors.max_new_tokens if own_environment(config) else 0
    return most_replies(config) * (len(TRY_AGAIN) + FRAME_CHARACTERS) + unknown


def rollout_tokens(config: RunConfig) -> int:
    """Everything after the prompt, at most."""
    return config.actors.max_new_tokens + most_reply_tokens(config)


def turns_text(config: RunConfig) -> str:
    """Behind the policy's limit of a rollout; "" where there is one turn."""
    if replies := most_replies(config):
        return f" in all of up to {replies + 1} turns, beside the environment's replies"
    return " (in all turns together, if it has several, beside its replies)" if own_environment(config) else ""


def replies_text(config: RunConfig, rollouts: int) -> str:
    """Behind the policy's limit of so many rollouts; "" where nothing is replied."""
    if replies := most_replies(config):
        tokens = rollouts * most_reply_tokens(config)
        return f" that the policy writes, and {rollouts * replies:,} replies with at most {tokens:,} more"
    return " that the policy writes, beside what your task's environment replies, if it has one" * own_environment(
        config
    )
