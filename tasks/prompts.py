"""Prompts: from a question to a chat, from a chat to token ids, and the tokenizer that does it.

    question + system prompt + worked examples -> messages -> chat template -> prompt_P (int32)

`transformers` is imported where a tokenizer is loaded (tokenizer_files.py) and nowhere else. Every text is tokenised once; what the
policy wrote is never tokenised back.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DataError, LoadError
from contracts.ports import Tokenizer
from contracts.problem import ChatMessage, Problem
from tasks.answers import render_answer
from tasks.chat_template import PROMPT_DATE, ChatTemplate
from tasks.config import AnswerForm, TaskSettings
from tasks.prompt_content import lost_from_prompts
from tasks.tokenizer_files import read_tokenizer

PAD_NAMES = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<|fim_pad|>", "<pad>", "[PAD]", "<unk>")


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """A solved problem that the prompt shows before the question."""

    question: str
    answer: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Of a task's prompts, in tokens."""

    min: int
    mean: float
    max: int
    notes: tuple[str, ...] = ()
    """What the chat template leaves out of them beside the question, a sentence each."""


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

    eos_token_ids: what ends a text by the model's files; the token that ends a turn in the chat template joins them.
    vocab_size: rows of the model's embedding, None where it is unknown. Raises LoadError for a tokenizer without a chat
    template that can put a question.
    """

    def __init__(
        self, tokenizer: Any, eos_token_ids: frozenset[int], source: str, vocab_size: int | None = None
    ) -> None:
        self._tokenizer, self._source = tokenizer, source
        self._template = ChatTemplate(tokenizer, source)
        self._vocab_size = max(tokenizer.get_vocab().values()) + 1 if vocab_size is None else vocab_size
        self._ends = Ends.of(tokenizer, self._template.turn_end, eos_token_ids, self._vocab_size)
        self.eos_token_ids = self._ends.token_ids
        self.pad_token_id = choose_pad(tokenizer, self.eos_token_ids, self._vocab_size)
        self.opening = self._template.opening
        framing = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        self._framing = {*eos_token_ids, *self.eos_token_ids, *(token for token in framing if token is not None)}

    @cached_property
    def fingerprint(self) -> str:
        """`template_hash`, and what memr makes of the template where that is more than to render it."""
        known = {
            "system": "in the user's turn" if self._template.drops_system else "",
            "date": PROMPT_DATE.date().isoformat() if self._template.dated else "",
            "opening": self.opening,
            "turn_end": self._ends.added,
            "given": self._template.facts,
        }
        facts = {name: fact for name, fact in known.items() if fact not in ("", None)}
        if not facts:
            return self.plain_fingerprint
        return hashlib.sha256(json.dumps([self.plain_fingerprint, facts], sort_keys=True).encode()).hexdigest()

    @cached_property
    def plain_fingerprint(self) -> str:
        """Of runs of earlier commits, which rendered every template as it is."""
        return template_hash(self._tokenizer)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in tokenizer and template and is handled, a sentence each, for who starts a run."""
        return tuple(_notes(self._template, self._ends, self._tokenizer, self._vocab_size))

    def encode(self, text: str) -> NDArray[np.int32]:
        return self._encode(text)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> NDArray[np.int32]:
        return self._encode(self._template.render(messages))

    def encode_reply(self, text: str) -> NDArray[np.int32]:
        """What the template puts after a policy turn that ended by itself: the rest of that turn's end, the reply as a
        user turn, the generation prompt. The end token itself is left out, for the policy has sampled it."""
        tokens_T = self._encode(self._template.after_policy(text))
        ended = next((i for i, token in enumerate(tokens_T.tolist()) if token in self.eos_token_ids), None)
        # A template may break the line before the end token; the policy has not.
        return tokens_T if ended is None or self.decode(tokens_T[:ended]).strip() else tokens_T[ended + 1 :]

    def decode(self, tokens: NDArray[np.int32]) -> str:
        """Without what begins, ends and pads texts. Other special tokens stay: they may be the answer form's own tags."""
        kept = [token for token in tokens.tolist() if token not in self._framing]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> NDArray[np.int32]:
        """Raises LoadError for a token that the model has no embedding of."""
        tokens_P = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
        if len(tokens_P) and int(tokens_P.max()) >= self._vocab_size:
            token = int(tokens_P.max())
            raise LoadError(
                f"the tokenizer of {self._source} writes token {token} ({self._tokenizer.convert_ids_to_tokens(token)!r}) and "
                f"the model's embedding has {self._vocab_size} rows, so tokenizer and weights do not belong together. Give "
                "the tokenizer that the model was trained with, or resize the model's embedding and save it again"
            )
        return tokens_P


@dataclass(frozen=True, slots=True)
class Ends:
    """Tokens that end a text. added: the one that ends a turn in the template and that the model's files do not name.
    spelt: how a turn ends where no end token does it; "" where a token does or nothing is written."""

    token_ids: frozenset[int]
    added: int | None
    spelt: str

    @classmethod
    def of(cls, tokenizer: Any, turn_end: str, named: frozenset[int], vocab_size: int) -> "Ends":
        ends = frozenset(token for token in named if token < vocab_size)
        written = tokenizer(turn_end, add_special_tokens=False)["input_ids"] if turn_end else []
        if not written or written[0] in ends:
            return cls(ends, None, "")
        first = int(written[0])
        if first < vocab_size and (len(written) == 1 or first in tokenizer.added_tokens_decoder):
            return cls(ends | {first}, first, "")
        return cls(ends, None, "" if ends & set(written) else turn_end)


def load_tokenizer(model_path: str) -> HfTokenizer:
    """Folder or hub id. Raises LoadError where there is no tokenizer to be loaded, or none with a chat template that works."""
    return HfTokenizer(*read_tokenizer(model_path))


def choose_pad(tokenizer: Any, eos_token_ids: frozenset[int], vocab_size: int | None = None) -> int:
    """The tokenizer's pad token unless it ends texts too; then a token that does neither; an end token at last. Only ids
    below vocab_size: the model has no embedding of others.

    Masks go by position, so padding with an end token would be harmless; a token of its own shows mistakes.
    """
    vocabulary = tokenizer.get_vocab()
    rows = math.inf if vocab_size is None else vocab_size
    named = [vocabulary[name] for name in PAD_NAMES if name in vocabulary]
    for token in (tokenizer.pad_token_id, *named, tokenizer.unk_token_id, *sorted(tokenizer.added_tokens_decoder)):
        if token is not None and token not in eos_token_ids and token < rows:
            return int(token)
    return min((token for token in eos_token_ids if token < rows), default=0)


def _notes(template: ChatTemplate, ends: Ends, tokenizer: Any, vocab_size: int) -> Iterator[str]:
    if template.folds_system:
        how = "leaves a system message out" if template.drops_system else "refuses a system message"
        yield f"the chat template {how}: system prompts go to the head of the user's first turn"
    if template.loses_turns:
        yield "the chat template leaves earlier turns out of a chat of several: worked examples and replies cannot be used"
    if template.unprompted:
        yield (
            f"the chat template writes no generation prompt: answers begin with {template.unprompted!r}, which the policy has "
            "to write itself"
        )
    if template.opening:
        yield f"the chat template opens {template.opening.strip()} itself: answers are judged and remembered with it"
    if template.dated:
        yield f"the chat template writes the date: it is {PROMPT_DATE:%d %B %Y} in every prompt, so that prompts stay the same"
    if ends.added is not None:
        name = tokenizer.convert_ids_to_tokens(ends.added)
        yield f"turns end with {name}, which the model's files name no end token: it ends answers here"
    if ends.spelt and ends.token_ids:
        yield f"turns end with the text {ends.spelt!r}, which is no single token: an answer ends at an end token or at the limit"
    if not ends.token_ids:
        yield "neither tokenizer nor template names an end token: every answer runs to actors.max_new_tokens"
    pad = tokenizer.pad_token_id
    if pad is not None and pad >= vocab_size:
        yield f"the pad token {tokenizer.pad_token!r} is outside of the model's embedding: another token pads"


def template_hash(tokenizer: Any) -> str:
    """SHA-256 hex over vocabulary and chat template: equal exactly where the same chat gives the same token ids.

    tokenizer: a transformers tokenizer.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    content = json.dumps([vocabulary, tokenizer.chat_template], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def check_prompt_lengths(problems: Sequence[Problem], tokenizer: Tokenizer, max_prompt_tokens: int) -> PromptLengths:
    """Raises DataError naming the longest prompt where one is longer than allowed, or where there is none, and LoadError
    where the chat template leaves a question out."""
    if not problems:
        raise DataError("the task gave no problems to check prompts of")
    prompts = [tokenizer.encode_chat(problem.messages) for problem in problems]
    lengths = [len(prompt_P) for prompt_P in prompts]
    longest = max(range(len(problems)), key=lengths.__getitem__)
    if lengths[longest] > max_prompt_tokens:
        too_long = sum(length > max_prompt_tokens for length in lengths)
        raise DataError(
            f"problem {problems[longest].problem_id}: its prompt has {lengths[longest]} tokens, the limit is "
            f"{max_prompt_tokens} ({too_long} of {len(problems)} prompts checked are too long). Raise "
            "task.max_prompt_tokens, lower task.worked_examples, shorten task.system_prompt, or drop the problem"
        )
    notes = lost_from_prompts(problems, prompts, tokenizer)
    return PromptLengths(min(lengths), sum(lengths) / len(lengths), max(lengths), notes)
