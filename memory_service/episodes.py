"""One of the two memories: questions, each with its responses in the order of writing.

Capacity (docs/algorithms.md, section 1): a new question beyond `max_queries` drops the oldest question with its
list; a list beyond `max_responses` drops its oldest responses. A dropped question that returns is the youngest.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contracts.ports import VectorIndex


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A rollout as memory keeps it. vector_D: float32, the embedding of its response."""

    rollout_id: str
    response: str
    vector_D: NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Query:
    """A remembered question and its responses, oldest first."""

    query_id: int
    question: str
    vector_D: NDArray[np.float32]
    episodes: deque[Episode] = field(default_factory=deque)


class EpisodeStore:
    """Questions by text, found by embedding. Not thread-safe: one owner calls it."""

    def __init__(self, index: VectorIndex, max_queries: int, max_responses: int) -> None:
        self._index = index
        self._max_queries = max_queries
        self._max_responses = max_responses
        self._by_question: dict[str, Query] = {}  # oldest first: dictionaries keep the order of insertion
        self._by_id: dict[int, Query] = {}
        self._next_id = 0
        self._rollout_ids: set[str] = set()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._by_question)

    def __iter__(self) -> Iterator[Query]:
        return iter(self._by_question.values())

    @property
    def num_episodes(self) -> int:
        return len(self._rollout_ids)

    @property
    def next_id(self) -> int:
        return self._next_id

    def nearest(self, vector_D: NDArray[np.float32], k: int) -> list[tuple[Query, float]]:
        """The k nearest questions with their cosines, nearest first; fewer where fewer are stored."""
        if not self._by_id:
            return []
        ids_QK, cosines_QK = self._index.search(vector_D[None, :], k)
        return [(self._by_id[int(i)], float(c)) for i, c in zip(ids_QK[0], cosines_QK[0], strict=True) if i >= 0]

    def write(self, question: str, vector_D: NDArray[np.float32], episodes: Sequence[Episode]) -> None:
        """Append responses to a question, which is added if it is new; then evict what is too much. A rollout that is
        stored already is not stored again."""
        episodes = [episode for episode in episodes if episode.rollout_id not in self._rollout_ids]
        if not episodes:
            return
        query = self._by_question.get(question)
        if query is None:
            query = self._add(Query(self._next_id, question, vector_D))
        query.episodes.extend(episodes)
        self._rollout_ids.update(episode.rollout_id for episode in episodes)
        while len(query.episodes) > self._max_responses:
            self._forget([query.episodes.popleft()])
        while len(self._by_question) > self._max_queries:
            self._drop_oldest()

    def restore(self, queries: Sequence[Query], next_id: int) -> None:
        """Replace everything by what a snapshot held."""
        assert not self._by_id, "a store is restored once, empty"
        for query in queries:
            self._by_question[query.question] = self._by_id[query.query_id] = query
            self._rollout_ids.update(episode.rollout_id for episode in query.episodes)
        self._next_id = next_id
        if queries:
            ids_N = np.array([query.query_id for query in queries], np.int64)
            self._index.add(ids_N, np.stack([query.vector_D for query in queries]))

    def _add(self, query: Query) -> Query:
        self._index.add(np.array([query.query_id], np.int64), query.vector_D[None, :])
        self._by_question[query.question] = self._by_id[query.query_id] = query
        self._next_id += 1
        return query

    def _drop_oldest(self) -> None:
        oldest = self._by_question.pop(next(iter(self._by_question)))
        del self._by_id[oldest.query_id]
        self._index.remove(np.array([oldest.query_id], np.int64))
        self._forget(oldest.episodes)

    def _forget(self, episodes: Iterable[Episode]) -> None:
        for episode in episodes:
            self._rollout_ids.discard(episode.rollout_id)
            self.evicted += 1


def union_of_responses(found: Sequence[tuple[Query, float]]) -> NDArray[np.float32] | None:
    """vectors_BD of all responses of the questions found; None where there is none."""
    vectors = [episode.vector_D for query, _ in found for episode in query.episodes]
    return np.stack(vectors) if vectors else None
