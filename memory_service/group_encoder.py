"""Groups with the embeddings that reading and writing need, one encoder call for all of them.

Shape letters: N trainable rollouts of a group, D dimensions of an embedding.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.errors import MemoryServiceError
from contracts.ports import TextEncoder
from contracts.rollout import Rollout, RolloutGroup
from memory_service.config import MemorySettings
from memory_service.embedding_cache import EmbeddingCache


@dataclass(frozen=True, slots=True, eq=False)
class EncodedGroup:
    """A group ready to be read: its trainable rollouts with their response embeddings. key: the question that memory
    stores them under."""

    group: RolloutGroup
    key: str
    key_D: NDArray[np.float32]
    rollouts: tuple[Rollout, ...]
    answers_ND: NDArray[np.float32]


class GroupEncoder:
    """batch_key: under key = "first_of_batch", the question of the batch that is under way."""

    def __init__(self, settings: MemorySettings, encoder: TextEncoder) -> None:
        self._settings = settings
        self.embeddings = EmbeddingCache(encoder)
        self.batch_key = ""
        opening, closing = (re.escape(tag) for tag in settings.reasoning_tags)
        self._reasoning = re.compile(f"{opening}(.*?){closing}", re.DOTALL)

    def encode(self, groups: Sequence[RolloutGroup], groups_before: int) -> list[EncodedGroup]:
        """groups_before: groups that were scored before these. Raises MemoryServiceError, naming the rollout, for a
        vector that is not finite or has no length; then nothing has changed."""
        members = [tuple(rollout for rollout in group.rollouts if rollout.trainable) for group in groups]
        keys = self._keys(groups, groups_before)
        texts = [self._span(rollout.text) for rollouts in members for rollout in rollouts]
        vectors = self.embeddings.encode([*keys, *texts])
        encoded, start = [], len(keys)
        for group, key, key_D, rollouts in zip(groups, keys, vectors, members, strict=False):
            block = vectors[start : start + len(rollouts)]
            start += len(rollouts)
            _check(block, rollouts)
            encoded.append(EncodedGroup(group, key, key_D.copy(), rollouts, block))
        self.batch_key = keys[-1] if keys else self.batch_key  # only now: a refused call leaves no key behind
        return encoded

    def _keys(self, groups: Sequence[RolloutGroup], groups_before: int) -> list[str]:
        """Each group's own question, or under `first_of_batch` the first question of its batch."""
        if self._settings.key == "per_problem":
            return [group.question for group in groups]
        keys, key = [], self.batch_key
        for offset, group in enumerate(groups):
            if (groups_before + offset) % self._settings.key_batch_groups == 0:
                key = group.question
            keys.append(key)
        return keys

    def _span(self, text: str) -> str:
        """What of a response is embedded (docs/algorithms.md, section 2: the reasoning alone)."""
        found = self._reasoning.search(text) if self._settings.response_span == "reasoning" else None
        return found.group(1) if found else text


def _check(answers_ND: NDArray[np.float32], rollouts: Sequence[Rollout]) -> None:
    lengths_N = np.linalg.norm(answers_ND.astype(np.float64), axis=1)
    for rollout, length in zip(rollouts, lengths_N, strict=True):
        if not np.isfinite(length) or length == 0:
            raise MemoryServiceError(
                f"the encoder gave rollout {rollout.rollout_id} a vector of length {length}; nothing was written. Check "
                f"memory.encoder; the text begins {rollout.text[:60]!r}"
            )
