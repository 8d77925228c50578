"""A tokenizer of single characters, for engines without a model and for tiny models.

Ids: 0 pad, 1 end of sequence, 2 unknown, then the alphabet in order. Loads without torch or transformers.
Simplified: the chat template is "role: content" lines.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.problem import ChatMessage

_SPECIAL = 3
_UNKNOWN = 2


class CharTokenizer:
    """contracts.ports.Tokenizer over an alphabet; characters outside it become the unknown token."""

    def __init__(self, alphabet: str) -> None:
        doubled = sorted({char for char in alphabet if alphabet.count(char) > 1})
        if doubled:
            raise ValueError(f"alphabet holds {doubled} more than once; give every character one token")
        self.eos_token_ids = frozenset({1})
        self.pad_token_id = 0
        self.opening = ""
        self._alphabet = alphabet
        self._ids = {char: index + _SPECIAL for index, char in enumerate(alphabet)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides how text becomes tokens."""
        return hashlib.sha256(f"characters\n{self._alphabet}".encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        return len(self._alphabet) + _SPECIAL

    def encode(self, text: str) -> NDArray[np.int32]:
        return np.array([self._ids.get(char, _UNKNOWN) for char in text], np.int32)

    def encode_chat(self, messages: Sequence[ChatMessage]) -> NDArray[np.int32]:
        lines = "".join(f"{message['role']}: {message['content']}\n" for message in messages)
        return self.encode(f"{lines}assistant: ")

    def encode_reply(self, text: str) -> NDArray[np.int32]:
        return self.encode(f"\nuser: {text}\nassistant: ")

    def decode(self, tokens: NDArray[np.int32]) -> str:
        """Text without pad and end tokens; the unknown token is U+FFFD."""
        return "".join(self._char(int(token)) for token in tokens if token not in (0, 1))

    def _char(self, token: int) -> str:
        index = token - _SPECIAL
        return self._alphabet[index] if 0 <= index < len(self._alphabet) else "\ufffd"
