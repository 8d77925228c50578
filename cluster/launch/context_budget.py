"""Works out the context length that a whole rollout needs: its prompt, the longest answer that any limit allows, and replies.

Evaluations may ask for longer answers than training. An engine with less room would cut them and report the limit that was
asked for, so the room is worked out from every limit of the run, and a model without it is refused.
"""

from collections.abc import Callable

from cluster.config.run_config import RunConfig
from cluster.config.turn_tokens import most_replies, own_environment
from contracts.errors import ConfigError
from contracts.ports import Tokenizer
from tasks.environment import TRY_AGAIN

_EXTENDED_BY_FACTOR = frozenset({"linear", "dynamic", "yarn", "longrope"})
"""Kinds of rotary position scaling under which the configuration's own number may not be the model's context."""

_CONTEXT = "the model's context has"
_UNSTEADY = (
    "the model turns its positions by another rule (rope_parameters: longrope, dynamic) for batches with more than"
)


def longest_answer(config: RunConfig) -> int:
    """Tokens; the largest limit of training and of the run's evaluations."""
    limits = [config.actors.max_new_tokens]
    if config.eval.problems:  # 0 turns every evaluation off
        limits += [config.eval_max_new_tokens, config.eval.generous_max_new_tokens or 0]
    return max(limits)


def reply_tokens(config: RunConfig, tokenizer: Tokenizer) -> int:
    """Of all replies of memr's own environment in one rollout."""
    replies = most_replies(config)
    return replies * len(tokenizer.encode_reply(TRY_AGAIN)) if replies else 0


def model_context(model_path: str) -> int | None:
    """Tokens that the model was made for; None where its configuration does not say."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(model_path, trust_remote_code=False).get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in _EXTENDED_BY_FACTOR:
        return None
    context: int | None = getattr(text, "max_position_embeddings", None)
    return context


def unsteady_beyond(model_path: str) -> int | None:
    """Tokens beyond which the model turns its positions by another rule (rotary scaling that looks at the longest sequence of
    a call); None where there is no such length.

    A rollout's log-probs would then depend on how long its neighbours in a batch are, in engine and learner each its own way.
    """
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(model_path, trust_remote_code=False).get_text_config()
    longest: int | None = getattr(text, "max_position_embeddings", None)
    stored = getattr(text, "rope_parameters", None) or {}
    found: list[int | None] = []
    for rope in (stored, *stored.values()):  # one for all layers, or one for each type of layer
        kind = rope.get("rope_type") if isinstance(rope, dict) else None
        if kind == "longrope":
            found.append(rope.get("original_max_position_embeddings", longest))
        elif kind == "dynamic":
            found.append(longest)
    return min((length for length in found if length is not None), default=None)


def find_room(
    config: RunConfig,
    tokenizer: Tokenizer,
    model_path: str,
    prompt: int,
    say: Callable[[str], None] | None = None,
    answer: int | None = None,
) -> int:
    """Tokens of the longest sequence that an engine must have room for. prompt: tokens of the longest one; answer: another
    limit than the run's own.

    Raises ConfigError where the model's context has less than a rollout may need. say: is told instead, of a run that has
    begun without this check."""
    context = None if config.model.scripted else model_context(model_path)
    answer = longest_answer(config) if answer is None else answer
    replies = reply_tokens(config, tokenizer)
    steady = None if config.model.scripted else unsteady_beyond(model_path)
    short = shortage(prompt, answer, replies, context) or shortage(prompt, answer, replies, steady, _UNSTEADY)
    if short is not None and say is None:
        raise ConfigError(short)
    if short is not None and say is not None:
        say(short)
    # An environment of the user's own may reply anything: as much again as an answer, and what needs more ends as overlong.
    unknown = answer if own_environment(config) else 0
    asked = config.task.max_prompt_tokens + answer + replies + unknown
    return min([asked, *(limit for limit in (context, steady) if limit is not None)])


def shortage(prompt: int, answer: int, replies: int, context: int | None, what: str = _CONTEXT) -> str | None:
    """What is asked of the model's context beyond what it has; None where all of it fits. what: context is."""
    needed = prompt + answer + replies
    if context is None or needed <= context:
        return None
    of_replies = f", {replies} for an environment's replies" if replies else ""
    return (
        f"a rollout may need {needed} tokens (the longest prompt has {prompt}, the longest answer {answer}{of_replies}) and "
        f"{what} {context}. Lower the longest of actors.max_new_tokens, eval.max_new_tokens and "
        "eval.generous_max_new_tokens, or choose shorter prompts or another model"
    )
