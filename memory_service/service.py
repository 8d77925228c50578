"""The episodic memory: reads a group against what was known before it, scores it, writes it.

    groups -> encode (one batch for the whole call) -> per group: read -> intrinsic rewards -> bonus -> write

One group is one read of one memory version and one atomic write: everything that can fail (encoding, checking)
happens before anything changes. Writes are idempotent by group and by rollout id. One owner thread calls this;
`ray_actor.py` is that thread. What a reward is: reading.py and intrinsic.py; which settings: config.py.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.errors import MemoryServiceError
from contracts.ports import TextEncoder, VectorIndex
from contracts.reports import MemoryReport
from contracts.rollout import BonusStage, Neighbour, Rollout, RolloutGroup, ScoredGroup
from memory_service.bonus import mixed_bonus
from memory_service.config import MemorySettings
from memory_service.contents import MemoryContents, describe
from memory_service.embedding_cache import EmbeddingCache
from memory_service.episodes import Episode, EpisodeStore, Query
from memory_service.faiss_index import FaissFlatIndex
from memory_service.normaliser import SlidingMinMax
from memory_service.numpy_index import NumpyIndex
from memory_service.reading import exploit_rewards, explore_rewards
from memory_service.snapshot import MemoryState, read_snapshot, write_snapshot

RECENT_GROUPS = 4096
"""Groups whose scores are kept, so that a repeated request is answered and not written again."""


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A group ready to be read: its trainable rollouts with their response embeddings."""

    group: RolloutGroup
    key: str
    key_D: NDArray[np.float32]
    rollouts: tuple[Rollout, ...]
    answers_ND: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a group was given; enough to answer the same request again."""

    exploit_G: NDArray[np.float32]
    explore_G: NDArray[np.float32]
    bonus_G: NDArray[np.float32]
    memory_version: int


class EpisodicMemory:
    """Scores groups against what was known before them, then writes them. clock: seconds, monotonic. value_of_correct: task reward that a right
    answer earns over a wrong one in this run, what mix = "scaled" takes its share of."""

    def __init__(
        self,
        settings: MemorySettings,
        encoder: TextEncoder,
        clock: Callable[[], float] = time.perf_counter,
        *,
        value_of_correct: float = 1.0,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._clock = clock
        self._value_of_correct = value_of_correct
        opening, closing = (re.escape(tag) for tag in settings.reasoning_tags)
        self._reasoning = re.compile(f"{opening}(.*?){closing}", re.DOTALL)
        self._embeddings = EmbeddingCache(encoder)
        self._recent: OrderedDict[str, Scores] = OrderedDict()
        self._version = self._groups_scored = self._rollouts_scored = self._duplicates = 0
        self._batch_key = ""
        self._encode_s = self._read_s = 0.0
        self._reset()

    def _reset(self) -> None:
        settings = self._settings
        self._successes = EpisodeStore(self._new_index(), settings.max_queries, settings.max_responses_per_query)
        self._failures = EpisodeStore(self._new_index(), settings.max_queries, settings.max_responses_per_query)
        window = (settings.window, settings.normaliser_eps, settings.normaliser_range_floor)
        self._exploit_window, self._explore_window = SlidingMinMax(*window), SlidingMinMax(*window)

    def _new_index(self) -> VectorIndex:
        dimension = self._encoder.dimension
        return FaissFlatIndex(dimension) if self._settings.index == "faiss_flat" else NumpyIndex(dimension)

    # -- scoring ---------------------------------------------------------------------------------------------

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """In order: group i is read with groups < i written. Raises MemoryServiceError before it changes anything
        of the group in question; groups before it stay written."""
        fresh = {group.group_id: group for group in groups if group.group_id not in self._recent}
        encoded = {item.group.group_id: item for item in self._encode(list(fresh.values()))}
        scored = []
        for group in groups:
            if group.group_id in self._recent:
                self._duplicates += 1
                scored.append(self._repeat(group))
            else:
                scored.append(self._score_one(encoded[group.group_id]))
        return scored

    def _score_one(self, item: _Encoded) -> ScoredGroup:
        version = self._version
        neighbours = self._neighbours(item)
        before = self._clock()
        if self._settings.order == "read_then_write":
            exploit_N, explore_N = self._read(item)
            read = self._clock()
            self._write(item, item.rollouts, item.answers_ND)
        else:
            exploit_N, explore_N = self._write_then_read(item)
            read = self._clock()
        self._read_s += read - before
        self._version += 1
        self._groups_scored += 1
        self._rollouts_scored += len(item.rollouts)
        return self._remember(item, exploit_N, explore_N, version, neighbours)

    def _read(self, item: _Encoded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        version = item.group.policy_version
        exploit_N = exploit_rewards(self._settings, self._successes, self._exploit_window, item.key_D, item.answers_ND)
        explore_N = explore_rewards(
            self._settings, self._failures, self._explore_window, item.key_D, item.answers_ND, version
        )
        return exploit_N, explore_N

    def _write(self, item: _Encoded, rollouts: Sequence[Rollout], answers_ND: NDArray[np.float32]) -> None:
        # Copies: a view would keep the vectors of the whole call alive.
        episodes = [Episode(r.rollout_id, r.text, a.copy()) for r, a in zip(rollouts, answers_ND, strict=True)]
        right = [e for e, r in zip(episodes, rollouts, strict=True) if r.correct]
        wrong = [e for e, r in zip(episodes, rollouts, strict=True) if not r.correct]
        self._successes.write(item.key, item.key_D, right)
        self._failures.write(item.key, item.key_D, wrong)

    def _write_then_read(self, item: _Encoded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The released code's order: response by response, first all of exploit, then all of explore."""
        exploit_N, explore_N = np.zeros(len(item.rollouts)), np.zeros(len(item.rollouts))
        for i, rollout in enumerate(item.rollouts):
            one = item.answers_ND[i : i + 1]
            if rollout.correct:
                self._write(item, [rollout], one)
            exploit_N[i] = exploit_rewards(self._settings, self._successes, self._exploit_window, item.key_D, one)[0]
        for i, rollout in enumerate(item.rollouts):
            one = item.answers_ND[i : i + 1]
            if not rollout.correct:
                self._write(item, [rollout], one)
            explore_N[i] = explore_rewards(
                self._settings, self._failures, self._explore_window, item.key_D, one, item.group.policy_version
            )[0]
        return exploit_N, explore_N

    def _remember(
        self,
        item: _Encoded,
        exploit_N: NDArray[np.float64],
        explore_N: NDArray[np.float64],
        version: int,
        neighbours: tuple[Neighbour, ...],
    ) -> ScoredGroup:
        bonus_N = self._bonus(item, exploit_N, explore_N)
        trainable_G = np.array([rollout.trainable for rollout in item.group.rollouts], np.bool_)
        spread = []
        for values_N in (exploit_N, explore_N, bonus_N):
            values_G = np.zeros(len(trainable_G), np.float32)
            values_G[trainable_G] = values_N
            spread.append(values_G)
        scores = Scores(spread[0], spread[1], spread[2], version)
        self._recent[item.group.group_id] = scores
        while len(self._recent) > RECENT_GROUPS:
            self._recent.popitem(last=False)
        return self._scored(item.group, scores, neighbours)

    def _bonus(
        self, item: _Encoded, exploit_N: NDArray[np.float64], explore_N: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        settings = self._settings
        if settings.all_correct_groups == "off" and all(rollout.correct for rollout in item.rollouts):
            return np.zeros(len(item.rollouts))
        return mixed_bonus(settings, exploit_N, explore_N, item.group.policy_version, self._value_of_correct)

    def _repeat(self, group: RolloutGroup) -> ScoredGroup:
        return self._scored(group, self._recent[group.group_id], ())

    def _scored(self, group: RolloutGroup, scores: Scores, neighbours: tuple[Neighbour, ...]) -> ScoredGroup:
        return ScoredGroup(
            group=group,
            exploit_G=scores.exploit_G,
            explore_G=scores.explore_G,
            bonus_G=scores.bonus_G,
            bonus_stage=BonusStage(self._settings.stage),
            memory_version=scores.memory_version,
            neighbours=neighbours,
        )

    def _neighbours(self, item: _Encoded) -> tuple[Neighbour, ...]:
        """The newest response of the nearest success and of the nearest failure, for people."""
        found = [(store.nearest(item.key_D, 1), correct) for store, correct in self._stores()]
        return tuple(_neighbour(*nearest[0], correct) for nearest, correct in found if nearest)

    def _stores(self) -> tuple[tuple[EpisodeStore, bool], tuple[EpisodeStore, bool]]:
        return (self._successes, True), (self._failures, False)

    # -- encoding --------------------------------------------------------------------------------------------

    def _encode(self, groups: Sequence[RolloutGroup]) -> list[_Encoded]:
        """One encoder call for every text of every group. Raises MemoryServiceError, naming the rollout, for a
        vector that is not finite or has no length."""
        started = self._clock()
        members = [tuple(rollout for rollout in group.rollouts if rollout.trainable) for group in groups]
        keys = self._keys(groups)
        texts = [self._span(rollout.text) for rollouts in members for rollout in rollouts]
        vectors = self._embeddings.encode([*keys, *texts])
        self._encode_s += self._clock() - started
        encoded, start = [], len(keys)
        for group, key, key_D, rollouts in zip(groups, keys, vectors, members, strict=False):
            block = vectors[start : start + len(rollouts)]
            start += len(rollouts)
            _check(block, rollouts)
            encoded.append(_Encoded(group, key, key_D.copy(), rollouts, block))
        self._batch_key = keys[-1] if keys else self._batch_key  # only now: a refused call leaves no key behind
        return encoded

    def _keys(self, groups: Sequence[RolloutGroup]) -> list[str]:
        """Each group's own question, or under `first_of_batch` the first question of its batch."""
        if self._settings.key == "per_problem":
            return [group.question for group in groups]
        keys, key = [], self._batch_key
        for offset, group in enumerate(groups):
            if (self._groups_scored + offset) % self._settings.key_batch_groups == 0:
                key = group.question
            keys.append(key)
        return keys

    def _span(self, text: str) -> str:
        """What of a response is embedded (docs/algorithms.md, section 2: the reasoning alone)."""
        found = self._reasoning.search(text) if self._settings.response_span == "reasoning" else None
        return found.group(1) if found else text

    # -- looking in and keeping ------------------------------------------------------------------------------

    def report(self) -> MemoryReport:
        return MemoryReport(
            memory_version=self._version,
            episodes=self._successes.num_episodes + self._failures.num_episodes,
            queries=len(self._successes) + len(self._failures),
            successes=self._successes.num_episodes,
            failures=self._failures.num_episodes,
            evicted=self._successes.evicted + self._failures.evicted,
            groups_scored=self._groups_scored,
            rollouts_scored=self._rollouts_scored,
            duplicates=self._duplicates,
            encode_s=self._encode_s,
            read_s=self._read_s,
        )

    def query(self, text: str, k: int) -> list[Neighbour]:
        """The newest response of each of the k nearest questions of either memory, nearest first."""
        vector_D = self._encoder.encode([text])[0]
        found = [
            _neighbour(query, cosine, correct)
            for store, correct in self._stores()
            for query, cosine in store.nearest(vector_D, k)
        ]
        return sorted(found, key=lambda neighbour: -neighbour.cosine)[:k]

    def contents(self) -> MemoryContents:
        return describe(self._version, self._successes, self._failures)

    def save(self, directory: Path) -> str:
        """Write an atomic snapshot below `directory`; returns its name."""
        state = MemoryState(
            encoder_fingerprint=self._encoder.fingerprint,
            memory_version=self._version,
            groups_scored=self._groups_scored,
            rollouts_scored=self._rollouts_scored,
            duplicates=self._duplicates,
            batch_key=self._batch_key,
            windows={"exploit": self._exploit_window.values, "explore": self._explore_window.values},
            next_ids={"success": self._successes.next_id, "failure": self._failures.next_id},
            evicted={"success": self._successes.evicted, "failure": self._failures.evicted},
            stores={"success": list(self._successes), "failure": list(self._failures)},
            recent={name: (s.exploit_G, s.explore_G, s.bonus_G, s.memory_version) for name, s in self._recent.items()},
            cache=self._embeddings.contents(),
        )
        return write_snapshot(state, self._encoder.dimension, directory)

    def restore(self, snapshot: Path) -> None:
        """Become what was saved. Raises MemoryServiceError, unchanged, if the snapshot is damaged or another encoder's."""
        state = read_snapshot(snapshot)
        if state.encoder_fingerprint != self._encoder.fingerprint:
            raise MemoryServiceError(
                f"{snapshot} was written with another encoder ({state.encoder_fingerprint[:12]}, here "
                f"{self._encoder.fingerprint[:12]}): set memory.encoder, encoder_dtype and long_text as in that run"
            )
        if state.cache[1].shape[1] != self._encoder.dimension:
            raise MemoryServiceError(
                f"{snapshot} holds vectors of dimension {state.cache[1].shape[1]}, the encoder makes "
                f"{self._encoder.dimension}; use an older snapshot"
            )
        self._reset()
        self._successes.restore(state.stores["success"], state.next_ids["success"])
        self._failures.restore(state.stores["failure"], state.next_ids["failure"])
        self._successes.evicted, self._failures.evicted = state.evicted["success"], state.evicted["failure"]
        self._exploit_window.restore(state.windows["exploit"])
        self._explore_window.restore(state.windows["explore"])
        self._version, self._groups_scored = state.memory_version, state.groups_scored
        self._rollouts_scored, self._duplicates = state.rollouts_scored, state.duplicates
        self._batch_key = state.batch_key
        self._embeddings.restore(*state.cache)
        self._recent = OrderedDict((name, Scores(*values)) for name, values in state.recent.items())


def _neighbour(query: Query, cosine: float, correct: bool) -> Neighbour:
    newest = query.episodes[-1]
    return Neighbour(newest.rollout_id, query.question, newest.response, correct, cosine)


def _check(answers_ND: NDArray[np.float32], rollouts: Sequence[Rollout]) -> None:
    lengths_N = np.linalg.norm(answers_ND.astype(np.float64), axis=1)
    for rollout, length in zip(rollouts, lengths_N, strict=True):
        if not np.isfinite(length) or length == 0:
            raise MemoryServiceError(
                f"the encoder gave rollout {rollout.rollout_id} a vector of length {length}; nothing was written. Check "
                f"memory.encoder; the text begins {rollout.text[:60]!r}"
            )
