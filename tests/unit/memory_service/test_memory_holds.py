"""Memory holds the vectors that it counts, and `memr plan` says how many bytes that will be."""

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.config.run_config import RunConfig
from cluster.launch.plan import make_plan
from cluster.watch.resources.monitor import folder_bytes
from cluster.watch.resources.projection import first_footprint, memory_bytes
from contracts.rollout import RolloutGroup
from memory_service.config import MemorySettings
from memory_service.embedding_cache import EmbeddingCache
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from tests.fakes import make_group

DIMENSION = 384


class StubEncoder:
    """Random unit vectors, made in one array per call as a real encoder's are."""

    dimension, fingerprint = DIMENSION, "stub"

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors_ND = self._random.normal(size=(len(texts), DIMENSION)).astype(np.float32)
        unit_ND: NDArray[np.float32] = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return unit_ND


def held_bytes(vectors: Sequence[NDArray[np.float32]]) -> int:
    """What is kept alive: each array that owns memory, whole, once (a question's vector serves both memories)."""
    owners = {}
    for vector in vectors:
        owner = vector
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owners[id(owner)] = owner.nbytes
    return sum(owners.values())


def counted_bytes(vectors: Sequence[NDArray[np.float32]]) -> int:
    return sum({id(vector): vector.nbytes for vector in vectors}.values())


def vectors_of(memory: EpisodicMemory) -> list[NDArray[np.float32]]:
    stored = [query for term in memory._terms.values() for query in term.store]
    episodes = [episode.vector_D for query in stored for episode in query.episodes]
    return [*(query.vector_D for query in stored), *episodes, *memory._groups.embeddings._vectors.values()]


def groups(count: int, size: int = 8, text: str = "an answer", first: int = 0) -> list[RolloutGroup]:
    rewards = [float(j % 4 == 0) for j in range(size)]
    made = [make_group(i, rewards=rewards, question=f"q {i}") for i in range(first, first + count)]
    return [
        replace(g, rollouts=tuple(replace(r, text=f"{text} {g.lease_id} {j}") for j, r in enumerate(g.rollouts)))
        for g in made
    ]


def small_memory() -> EpisodicMemory:
    memory = EpisodicMemory(MemorySettings(max_queries=4, max_responses_per_query=2), StubEncoder())
    memory._groups.embeddings = EmbeddingCache(memory._encoder, max_texts=10)
    return memory


def test_after_eviction_memory_holds_what_it_counts_and_not_whole_calls() -> None:
    """32 groups a call, of which few survive: at 57c9e8c one survivor kept the array of its whole call."""
    memory, history = small_memory(), groups(128)
    for start in range(0, 128, 32):
        memory.score(history[start : start + 32])
    counted = vectors_of(memory)
    assert 0 < len(counted) < 40
    assert held_bytes(counted) == counted_bytes(counted) <= len(counted) * DIMENSION * 4


def test_a_restored_memory_holds_no_more(tmp_path: Path) -> None:
    memory = small_memory()
    memory.score(groups(32))
    restored = small_memory()
    restored.restore(tmp_path / memory.save(tmp_path))
    restored.score(groups(32, first=32))
    counted = vectors_of(restored)
    assert held_bytes(counted) == counted_bytes(counted) <= len(counted) * DIMENSION * 4


def test_the_cache_alone_holds_what_it_counts() -> None:
    cache = EmbeddingCache(HashEncoder(16), max_texts=3)
    cache.encode([f"text {i}" for i in range(50)])
    assert held_bytes(list(cache._vectors.values())) == 3 * 16 * 4


def run_of(episodes: int, rollouts: int, tokens: int) -> RunConfig:
    """A run whose memory holds so many episodes at its end, from groups of so many rollouts with at most so many tokens."""
    return RunConfig.model_validate(
        {
            "model": {"name": "scripted"},
            "actors": {"engine": "scripted", "rollouts_per_group": rollouts, "max_new_tokens": tokens},
            "learner": {"num_updates": episodes // (8 * rollouts)},
            "cluster": {"groups_per_batch": 8},
        }
    )


def test_a_checkpoint_grows_by_what_the_projection_says_an_episode_takes(tmp_path: Path) -> None:
    """The projection has one number for an episode, in memory and in a snapshot: on disk it is a bound, at most twofold."""
    rollouts, tokens = 16, 100
    config = run_of(2048, rollouts, tokens)
    words = np.random.default_rng(1).choice([f"word{i}" for i in range(2000)], (2048, 4 * tokens // 8))
    texts = iter([" ".join(line) for line in words])
    memory = EpisodicMemory(config.memory, StubEncoder())
    for update in range(config.learner.num_updates):
        batch = groups(8, rollouts, first=8 * update)
        memory.score([replace(g, rollouts=tuple(replace(r, text=next(texts)) for r in g.rollouts)) for g in batch])
    measured = folder_bytes(tmp_path / memory.save(tmp_path)) / memory.report().episodes
    guess = first_footprint(0, config).bytes_per_episode
    assert guess == memory_bytes(config) / 2048 == make_plan(config).memory_bytes_expected / 2048
    assert measured <= guess <= 2 * measured, (measured, guess)


def test_the_plan_is_within_a_fifth_of_20000_measured_episodes() -> None:
    """All answers different and as long as they may be, all questions different: what the plan assumes."""
    rollouts, tokens = 50, 100
    config = run_of(20_000, rollouts, tokens)
    updates = config.learner.num_updates
    planned = make_plan(config).memory_bytes_expected
    gc.collect()
    tracemalloc.start()
    memory = EpisodicMemory(config.memory, StubEncoder())
    for update in range(updates):
        batch = groups(8, rollouts, "x" * (4 * tokens - 12), first=8 * update)
        memory.score(batch)
    del batch
    gc.collect()
    measured, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory.report().episodes == updates * 8 * rollouts
    assert 0.8 * measured < planned < 1.2 * measured, (
        planned / memory.report().episodes,
        measured / memory.report().episodes,
    )
