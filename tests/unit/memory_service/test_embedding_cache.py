"""Embeddings are computed once per text, in one call, and come back in the order asked."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memory_service.embedding_cache import EmbeddingCache


class CountingEncoder:
    dimension = 2
    fingerprint = "counting"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32).reshape(len(texts), 2)


def test_a_text_is_encoded_once_and_vectors_come_in_the_order_asked() -> None:
    encoder = CountingEncoder()
    cache = EmbeddingCache(encoder)
    assert cache.encode(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
    assert cache.encode(["ccc", "bb"])[:, 0].tolist() == [3, 2]
    assert encoder.asked == [["a", "bb"], ["ccc"]]


def test_the_least_recently_used_text_is_forgotten() -> None:
    encoder = CountingEncoder()
    cache = EmbeddingCache(encoder, max_texts=2)
    cache.encode(["a", "bb"])
    cache.encode(["a"])
    cache.encode(["ccc"])
    cache.encode(["a", "bb"])
    assert encoder.asked == [["a", "bb"], ["ccc"], ["bb"]]


def test_one_call_may_ask_for_more_texts_than_are_kept() -> None:
    cache = EmbeddingCache(CountingEncoder(), max_texts=1)
    assert cache.encode(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]


def test_no_text_gives_an_empty_matrix() -> None:
    assert EmbeddingCache(CountingEncoder()).encode([]).shape == (0, 2)
