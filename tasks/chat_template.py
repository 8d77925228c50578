"""A tokenizer's chat template, tried once: what it refuses, what it opens, how it ends a turn, whether it reads the clock.

    chat -> (system message into the user's turn, where the template has no place for one) -> text

Templates are programs that came with a model. Each fact is found by rendering small chats of markers, none by the model's
name; what the template does not do with a chat is asked of the template.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from contracts.errors import LoadError
from contracts.problem import ChatMessage
from loading.load_errors import error_text, loading

PROMPT_DATE = datetime(2024, 7, 26)
"""What every template reads from the clock: prompts stay the same from day to day. The day that Llama 3.x's own template
falls back to."""

_OTHER_DATE = datetime(2001, 2, 3)
_REASONING_TAGS = frozenset({"think", "thinking", "thought", "reasoning", "reason", "scratchpad"})
_LAST_TAG = re.compile(r"<([A-Za-z][\w-]*)>\s*\Z")

USER, POLICY, SYSTEM, SECOND = "user-turn-marker", "policy-turn-marker", "system-turn-marker", "second-user-turn"
_QUESTION: ChatMessage = {"role": "user", "content": USER}
_SECOND: ChatMessage = {"role": "user", "content": SECOND}
_ANSWER: ChatMessage = {"role": "assistant", "content": POLICY}
_SYSTEM: ChatMessage = {"role": "system", "content": SYSTEM}


@dataclass(frozen=True, slots=True)
class _Way:
    """How a chat is given to the template: what templates ask for beyond roles and texts."""

    name: str = ""
    parts: bool = False
    """Texts as lists of parts, which templates of models that see pictures take."""
    tools: bool = False
    """An empty list of tools instead of none."""
    head: tuple[ChatMessage, ...] = ()
    """What has to stand before a question for it to be taken."""

    def given(self, message: ChatMessage) -> dict[str, Any]:
        text = message["content"]
        return dict(message) | ({"content": [{"type": "text", "text": text}]} if self.parts else {})


_WAYS = (_Way(), _Way("parts", parts=True), _Way("tools", tools=True), _Way("system", head=(_SYSTEM,)))


class ChatTemplate:
    """tokenizer: of transformers. source: where it came from, for messages.

    Raises LoadError for a template that is none, or that cannot put a single question.
    """

    def __init__(self, tokenizer: Any, source: str) -> None:
        self._way = _Way()
        if not tokenizer.chat_template:
            raise LoadError(
                f"the tokenizer of {source} has no chat template: choose an instruction-tuned model, or put a "
                "chat_template.jinja into the model's folder"
            )
        self._tokenizer, self._source = tokenizer, source
        self._way = self._that_shows_a_question()

    def render(self, messages: Sequence[ChatMessage], *, generation_prompt: bool = True) -> str:
        """Raises LoadError, with the template's own words, for a chat that it refuses."""
        chat = _fold_system(messages) if self.folds_system else list(messages)
        if self.loses_turns and sum(message["role"] != "system" for message in chat) > 1:
            raise LoadError(
                f"the chat template of {self._source} leaves earlier turns out of a chat of several, and so the policy would not "
                "see them. Set task.worked_examples = 0 and take no environment of several turns, or mend chat_template.jinja"
            )
        try:
            return self._rendered(chat, generation_prompt=generation_prompt)
        except Exception as error:
            roles = ", ".join(message["role"] for message in messages)
            raise LoadError(
                f"the chat template of {self._source} refuses a chat of {roles}: {error_text(error)}. Choose a task and settings "
                "that give another chat (task.system_prompt, task.worked_examples, task.environment), or mend chat_template.jinja"
            ) from error

    def after_policy(self, reply: str) -> str:
        """What is written behind a turn of the policy that a user's reply follows. Raises LoadError as `render` does."""
        chat: list[ChatMessage] = [*self._way.head, _QUESTION, _ANSWER, {"role": "user", "content": reply}]
        return self.render(chat).partition(POLICY)[2]

    @cached_property
    def facts(self) -> str:
        """How chats are given to the template where that is not as they are; part of a run's fingerprint."""
        return self._way.name

    @cached_property
    def loses_turns(self) -> bool:
        """The template shows the last turn alone, or no turn of the policy, or not what follows on that: worked examples and
        replies would be lost."""
        shown = self._tried([_QUESTION, _ANSWER, _SECOND])
        if shown is None:
            return False
        earlier, policy, later = shown.partition(POLICY)
        return not (policy and USER in earlier and SECOND in later)

    @cached_property
    def unprompted(self) -> str:
        """What begins a turn of the policy and is no part of the prompt, as the template writes no generation prompt."""
        prompt, without = self._tried([_QUESTION]), self._tried([_QUESTION], generation_prompt=False)
        whole = self._tried([_QUESTION, _ANSWER], generation_prompt=False)
        if prompt is None or whole is None or prompt != without or not whole.startswith(prompt):
            return ""
        return whole[len(prompt) :].partition(POLICY)[0].strip()

    @cached_property
    def folds_system(self) -> bool:
        """The template refuses a system message, or leaves it out: it goes before the first user message instead."""
        shown = self._tried([_SYSTEM, _QUESTION])
        return shown is None or SYSTEM not in shown

    @cached_property
    def drops_system(self) -> bool:
        """The template leaves a system message out without a word."""
        shown = self._tried([_SYSTEM, _QUESTION])
        return shown is not None and SYSTEM not in shown

    @cached_property
    def opening(self) -> str:
        """What the generation prompt has written of the policy's own turn: `<think>` and a line break, or nothing."""
        prompt = self._tried([_QUESTION]) or ""
        tag = _LAST_TAG.search(prompt)
        if tag is None:
            return ""
        earlier = self._tried([_QUESTION, _ANSWER, _QUESTION])
        before = earlier.partition(POLICY)[0] if earlier is not None else ""
        # A tag that begins earlier turns too, and is never closed there, names the role: <assistant>.
        of_this_turn = bool(before) and _shared(prompt, before) <= tag.start()
        closed_earlier = f"</{tag[1]}>" in before
        opened = of_this_turn or closed_earlier or tag[1].lower() in _REASONING_TAGS
        return prompt[tag.start() :] if opened else ""

    @cached_property
    def turn_end(self) -> str:
        """What the template writes behind the policy's last turn, without white space; empty where that is nothing."""
        shown = self._tried([_QUESTION, _ANSWER], generation_prompt=False)
        return shown.rpartition(POLICY)[2].strip() if shown is not None and POLICY in shown else ""

    @cached_property
    def dated(self) -> bool:
        """The template writes the date of the day into prompts."""
        chats = ([_QUESTION], [_SYSTEM, _QUESTION])
        return any(self._tried(chat) != self._tried(chat, now=_OTHER_DATE) for chat in chats)

    def _tried(
        self, chat: Sequence[ChatMessage], *, generation_prompt: bool = True, now: datetime = PROMPT_DATE
    ) -> str | None:
        """None for a chat that the template refuses."""
        headed = chat if chat[0]["role"] == "system" else [*self._way.head, *chat]
        try:
            with loading("refused"):
                return self._rendered(headed, generation_prompt=generation_prompt, now=now)
        except LoadError:
            return None

    def _that_shows_a_question(self) -> "_Way":
        """The first way in which it does. Raises LoadError, with what the template says to the first, where none does."""
        for self._way in _WAYS:
            shown = self._tried([_QUESTION])
            if shown is not None and USER in shown:
                return self._way
        self._way = _WAYS[0]
        with loading(
            f"cannot use the chat template of {self._source}", "Mend chat_template.jinja in the model's folder"
        ):
            self._rendered([_QUESTION])
        raise LoadError(
            f"the chat template of {self._source} leaves the user's message out, or alters it, so the policy would not see its "
            "problem. Mend chat_template.jinja in the model's folder"
        )

    def _rendered(
        self, chat: Sequence[ChatMessage], *, generation_prompt: bool = True, now: datetime = PROMPT_DATE
    ) -> str:
        messages = [self._way.given(message) for message in chat]
        clock: Callable[[str], str] = now.strftime  # an argument of a template hides the global of its name
        return str(
            self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                strftime_now=clock,
                **({"tools": []} if self._way.tools else {}),
            )
        )


def _shared(text: str, other: str) -> int:
    """Characters that both begin with."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (mine, its) in pairs if mine != its), min(len(text), len(other)))


def _fold_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Leading system messages in front of the first user message, a blank line between them."""
    told_first = 0
    while told_first < len(messages) and messages[told_first]["role"] == "system":
        told_first += 1
    if not told_first:
        return list(messages)
    rest = list(messages[told_first:])
    instruction = "\n\n".join(message["content"] for message in messages[:told_first])
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{instruction}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": instruction}, *rest]
