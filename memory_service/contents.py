"""What a memory holds, in numbers: for `memr memory inspect`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memory_service.episodes import EpisodeStore

_MAX_QUESTIONS = 2000
"""Questions compared pairwise for the histogram; of larger memories the newest."""
_EDGES = np.round(np.linspace(0.0, 1.0, 11), 2)


@dataclass(frozen=True, slots=True)
class MemoryContents:
    """nearest_distance_*: histogram of 1 - cosine from each stored question to its nearest other one."""

    memory_version: int
    success_queries: int
    successes: int
    failure_queries: int
    failures: int
    nearest_distance_edges: tuple[float, ...]
    nearest_distance_counts: tuple[int, ...]


def describe(memory_version: int, successes: EpisodeStore, failures: EpisodeStore) -> MemoryContents:
    """Counts what both stores hold, with a histogram of distances (1 - cosine) between nearest questions."""
    by_question = {query.question: query.vector_D for store in (successes, failures) for query in store}
    counts, edges = np.histogram(_nearest_distances(list(by_question.values())[-_MAX_QUESTIONS:]), bins=_EDGES)
    return MemoryContents(
        memory_version=memory_version,
        success_queries=len(successes),
        successes=successes.num_episodes,
        failure_queries=len(failures),
        failures=failures.num_episodes,
        nearest_distance_edges=tuple(float(edge) for edge in edges),
        nearest_distance_counts=tuple(int(count) for count in counts),
    )


def _nearest_distances(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(vectors) < 2:
        return np.empty(0, np.float32)
    vectors_ND = np.stack(vectors)
    cosines_NN = vectors_ND @ vectors_ND.T
    np.fill_diagonal(cosines_NN, -np.inf)
    nearest_N: NDArray[np.float32] = np.clip(1.0 - cosines_NN.max(axis=1), 0.0, 1.0)
    return nearest_N
