"""Embeddings, remembered by text: a question comes back every epoch, a short answer in every other group, and what
a text embeds to never changes."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.ports import TextEncoder

MAX_TEXTS = 20_000
"""At 384 dimensions of 4 bytes, 31 MB, in memory and in every snapshot."""


class EmbeddingCache:
    """Least recently used texts go first. Not thread-safe: one owner calls it."""

    def __init__(self, encoder: TextEncoder, max_texts: int = MAX_TEXTS) -> None:
        self._encoder = encoder
        self._max_texts = max_texts
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def contents(self) -> tuple[list[str], NDArray[np.float32]]:
        """Texts, least recently used first, with their vectors [N, D]."""
        texts = list(self._vectors)
        empty = np.empty((0, self._encoder.dimension), np.float32)
        return texts, np.stack([self._vectors[text] for text in texts]) if texts else empty

    def restore(self, texts: Sequence[str], vectors_ND: NDArray[np.float32]) -> None:
        """Become what `contents` said. An encoder's last bits depend on what shares its batch: a memory that is to go on
        exactly must not encode again what it knew."""
        self._vectors = OrderedDict(zip(texts, _rows(vectors_ND), strict=True))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), D]. What is not remembered is encoded, each text once, in one call of the encoder."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            self._vectors |= zip(missing, _rows(self._encoder.encode(missing)), strict=True)
        for text in texts:
            self._vectors.move_to_end(text)
        found = np.stack([self._vectors[text] for text in texts]) if texts else self._encoder.encode([])
        while len(self._vectors) > self._max_texts:
            self._vectors.popitem(last=False)
        return found


def _rows(vectors_ND: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Copies: a view would keep the array of its whole call alive when the others have long gone."""
    return (vector_D.copy() for vector_D in vectors_ND)
