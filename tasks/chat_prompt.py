"""Prompts that a data file holds as chats: `[{"role": "user", "content": ".."}]`, as chat data sets for RL have them.

    messages of a row -> checked -> the prompt as it is; its text is the question, memory's key

A system message of the row's own stands in place of task.system_prompt. The last message is the user's: what follows it is
what the policy learns to write.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from contracts.errors import DataError
from contracts.problem import ChatMessage

_CHAT_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")
_ROLES = ("system", "user", "assistant")


def is_chat(value: Any) -> bool:
    """Whether a value is a non-empty list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(message, dict) for message in value)


def unpacked_chat(value: Any, place: str, field: str) -> Any:
    """A chat that was written as a JSON text, as CSV files hold them; every other value as it is.

    Raises DataError for one that was written as Python prints it: the policy would be asked that text.
    """
    if not isinstance(value, str) or not _CHAT_AS_TEXT.match(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: '{field}' is a chat written as text, and not as JSON ({error}). Write it with json.dumps, or save the "
            "rows as .jsonl or .parquet"
        ) from error


def read_chat(value: Sequence[Any], place: str, field: str) -> tuple[ChatMessage, ...]:
    """Raises DataError, naming the place, for what no chat template takes."""
    messages = tuple(_message(message, f"{place}: '{field}', message {i}") for i, message in enumerate(value, start=1))
    if messages[-1]["role"] != "user":
        raise DataError(
            f"{place}: '{field}' ends with a message of the {messages[-1]['role']}; a prompt ends with the user's. Take the "
            "answer out of the chat, and put it into a column of its own (task.answer_field)"
        )
    return messages


def question_of(messages: Sequence[ChatMessage]) -> str:
    """Everything but the system message, as one text."""
    return "\n".join(message["content"] for message in messages if message["role"] != "system").strip()


def _message(message: Any, place: str) -> ChatMessage:
    role, content = message.get("role"), _text(message.get("content"))
    if role not in _ROLES or not content:
        raise DataError(
            f'{place}: expected {{"role": "system | user | assistant", "content": "a text"}}, found role {str(role)[:40]!r} '
            f"and content {str(message.get('content'))[:60]!r}. Mend the row"
        )
    return cast(ChatMessage, {"role": role, "content": content})


def _text(content: Any) -> str | None:
    """Content may come in parts; only text can be read."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(parts) else None
