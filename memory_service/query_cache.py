"""Question embeddings, remembered: a question comes back every epoch and its embedding never changes."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.ports import TextEncoder

_MAX_QUESTIONS = 100_000


class QueryCache:
    """Least recently used questions go first."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def encode_with(
        self, questions: Sequence[str], texts: Sequence[str]
    ) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
        """Vectors of the questions by text, and of the texts [len(texts), D], in one call of the encoder."""
        missing = [question for question in dict.fromkeys(questions) if question not in self._vectors]
        vectors = self._encoder.encode([*missing, *texts])
        for question, vector in zip(missing, vectors[: len(missing)], strict=True):
            self._vectors[question] = vector
        found = {question: self._vectors[question] for question in questions}
        for question in found:
            self._vectors.move_to_end(question)
        while len(self._vectors) > _MAX_QUESTIONS:
            self._vectors.popitem(last=False)
        return found, vectors[len(missing) :]
