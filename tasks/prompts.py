"""Prompts: from a question to a chat, from a chat to token ids, and the tokenizer that does it.

    question + system prompt + worked examples -> messages -> chat template -> prompt_P (int32)

`transformers` is imported where a tokenizer is loaded and nowhere else. Every text is tokenised once; what the
policy wrote is never tokenised back.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DataError
from contracts.ports import Tokenizer
from contracts.problem import ChatMessage, Problem
from tasks.answers import render_answer
from tasks.config import AnswerForm, TaskSettings

PAD_NAMES = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<pad>", "[PAD]", "<unk>")
POLICY_TURN = "policy-turn-marker"


@dataclass(frozen=True, slots=True)
class WorkedExample:
    question: str
    answer: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Of a task's prompts, in tokens."""

    min: int
    mean: float
    max: int


def form_instruction(form: AnswerForm) -> str:
    """The system prompt that asks for this answer form."""
    return {
        "number": "Answer with the number only.",
        "boxed": "Think step by step, then give the final answer as \\boxed{answer}.",
        "think_answer": (
            "Think first, then answer, in exactly this form:\n"
            "<think>\nyour reasoning\n</think>\n<answer>\nthe final answer alone\n</answer>"
        ),
    }[form]


def build_messages(
    question: str, settings: TaskSettings, examples: Sequence[WorkedExample], chat: Sequence[ChatMessage] = ()
) -> tuple[ChatMessage, ...]:
    """System prompt, worked examples as earlier turns, question. chat: stands in place of the question, and its own system
    message in place of the settings'."""
    system = form_instruction(settings.answer_form) if settings.system_prompt is None else settings.system_prompt
    messages: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
    if chat and chat[0]["role"] == "system":
        messages, chat = [chat[0]], chat[1:]
    for example in examples:
        shown = render_answer(example.answer, settings.answer_form, example.reasoning)
        messages.append({"role": "user", "content": example.question})
        messages.append({"role": "assistant", "content": shown})
    last: ChatMessage = {"role": "user", "content": question}
    return (*messages, *(chat or [last]))


class HfTokenizer:
    """Implements contracts.ports.Tokenizer around a transformers tokenizer.

    Raises DataError for a tokenizer without a chat template.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: frozenset[int], source: str) -> None:
        if not tokenizer.chat_template:
            raise DataError(
                f"the tokenizer of {source} has no chat template: choose an instruction-tuned model, or put a "
                "chat_template.jinja into the model's folder"
            )
        self._tokenizer = tokenizer
        self.eos_token_ids = eos_token_ids
        self.pad_token_id = choose_pad(tokenizer, eos_token_ids)

    @cached_property
    def fingerprint(self) -> str:
        """See template_hash."""
        return template_hash(self._tokenizer)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> NDArray[np.int32]:
        return self._encode(self._render(messages))

    def encode_reply(self, text: str) -> NDArray[np.int32]:
        """What the template puts after a policy turn that ended by itself: the rest of that turn's end, the reply as a
        user turn, the generation prompt. The end token itself is left out, for the policy has sampled it."""
        chat: list[ChatMessage] = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": POLICY_TURN},
            {"role": "user", "content": text},
        ]
        _, _, after = self._render(chat).partition(POLICY_TURN)
        tokens_T = self._encode(after)
        return tokens_T[1:] if len(tokens_T) and int(tokens_T[0]) in self.eos_token_ids else tokens_T

    def decode(self, tokens: NDArray[np.int32]) -> str:
        return str(
            self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _render(self, messages: Sequence[ChatMessage]) -> str:
        chat = [dict(message) for message in messages]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def _encode(self, text: str) -> NDArray[np.int32]:
        return np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)


def load_tokenizer(model_path: str) -> HfTokenizer:
    """Folder or hub id. Raises DataError where there is no tokenizer to be loaded."""
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load a tokenizer from {model_path}: {error}") from error
    try:
        listed = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:
        listed = None  # a model without generation_config.json: the tokenizer's end token stands alone
    ends = {tokenizer.eos_token_id} | (set(listed) if isinstance(listed, list) else {listed})
    return HfTokenizer(tokenizer, frozenset(int(end) for end in ends if end is not None), model_path)


def choose_pad(tokenizer: Any, eos_token_ids: frozenset[int]) -> int:
    """The tokenizer's pad token unless it ends texts too; then a token that does neither; an end token at last.

    Masks go by position, so padding with an end token would be harmless; a token of its own shows mistakes.
    """
    vocabulary = tokenizer.get_vocab()
    named = [vocabulary[name] for name in PAD_NAMES if name in vocabulary]
    for token in (tokenizer.pad_token_id, *named, tokenizer.unk_token_id, *sorted(tokenizer.added_tokens_decoder)):
        if token is not None and token not in eos_token_ids:
            return int(token)
    return min(eos_token_ids, default=0)


def template_hash(tokenizer: Any) -> str:
    """SHA-256 hex over vocabulary and chat template: equal exactly where the same chat gives the same token ids.

    tokenizer: a transformers tokenizer.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    content = json.dumps([vocabulary, tokenizer.chat_template], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def check_prompt_lengths(problems: Sequence[Problem], tokenizer: Tokenizer, max_prompt_tokens: int) -> PromptLengths:
    """Raises DataError naming the longest prompt where one is longer than allowed, or where there is none."""
    if not problems:
        raise DataError("the task gave no problems to check prompts of")
    lengths = [len(tokenizer.encode_chat(problem.messages)) for problem in problems]
    longest = max(range(len(problems)), key=lengths.__getitem__)
    if lengths[longest] > max_prompt_tokens:
        too_long = sum(length > max_prompt_tokens for length in lengths)
        raise DataError(
            f"problem {problems[longest].problem_id}: its prompt has {lengths[longest]} tokens, the limit is "
            f"{max_prompt_tokens} ({too_long} of {len(problems)} prompts checked are too long). Raise "
            "task.max_prompt_tokens, lower task.worked_examples, shorten task.system_prompt, or drop the problem"
        )
    return PromptLengths(min(lengths), sum(lengths) / len(lengths), max(lengths))
