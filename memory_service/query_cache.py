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
        """Vectors of the questions by text, and of the texts [len(texts), D], in one call of the encoder.

        A text that stands there twice is encoded once: short answers repeat within a group.
        """
        missing = [question for question in dict.fromkeys(questions) if question not in self._vectors]
        distinct = list(dict.fromkeys([*missing, *texts]))
        rows = {text: row for row, text in enumerate(distinct)}
        vectors = self._encoder.encode(distinct)
        for question in missing:
            self._vectors[question] = vectors[rows[question]]
        found = {question: self._vectors[question] for question in questions}
        for question in found:
            self._vectors.move_to_end(question)
        while len(self._vectors) > _MAX_QUESTIONS:
            self._vectors.popitem(last=False)
        return found, vectors[[rows[text] for text in texts]]
