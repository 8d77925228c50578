"""The episodic memory: reads a group against what was known before it, scores it, writes it.

    groups -> GroupEncoder (one batch for the whole call) -> per group: each Term reads -> bonus -> each Term writes

One group is one read of one memory version and one atomic write: everything that can fail (encoding, checking)
happens before anything changes. Writes are idempotent by group and by rollout id. One owner thread calls this;
`ray_actor.py` is that thread. What a reward is: terms.py, reading.py and intrinsic.py; which settings: config.py.
"""

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
from contracts.rollout import BonusStage, Neighbour, RolloutGroup, ScoredGroup
from memory_service.bonus import mixed_bonus
from memory_service.config import MemorySettings
from memory_service.contents import MemoryContents, describe
from memory_service.faiss_index import FaissFlatIndex
from memory_service.group_encoder import EncodedGroup, GroupEncoder
from memory_service.snapshot import MemoryState, read_snapshot, write_snapshot
from memory_service.terms import TERMS, TermState, make_terms

RECENT_GROUPS = 4096
"""Groups whose scores are kept, so that a repeated request is answered and not written again."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a group was given; enough to answer the same request again."""

    exploit_G: NDArray[np.float32]
    explore_G: NDArray[np.float32]
    bonus_G: NDArray[np.float32]
    memory_version: int


class EpisodicMemory:
    """Scores groups against what was known before them, then writes them.

    clock: seconds, monotonic. value_of_correct: task reward that a right answer earns over a wrong one in this run, what
    mix = "scaled" takes its share of. index: makes an empty one for vectors of a dimension.
    """

    def __init__(
        self,
        settings: MemorySettings,
        encoder: TextEncoder,
        clock: Callable[[], float] = time.perf_counter,
        *,
        value_of_correct: float = 1.0,
        index: Callable[[int], VectorIndex] = FaissFlatIndex,
    ) -> None:
        self._settings, self._index = settings, index
        self._encoder = encoder
        self._clock = clock
        self._value_of_correct = value_of_correct
        self._groups = GroupEncoder(settings, encoder)
        self._terms = make_terms(settings, self._new_index)
        self._recent: OrderedDict[str, Scores] = OrderedDict()
        self._version = self._groups_scored = self._rollouts_scored = self._duplicates = 0
        self._encode_s = self._read_s = 0.0

    def _new_index(self) -> VectorIndex:
        dimension = self._encoder.dimension
        return self._index(dimension)

    # -- scoring ---------------------------------------------------------------------------------------------

    def score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        """In order: group i is read with groups < i written. Raises MemoryServiceError before it changes anything
        of the group in question; groups before it stay written. Raises ConfigError for a user's formula that fails: the run
        ends with it, and so does this memory."""
        fresh = {group.group_id: group for group in groups if group.group_id not in self._recent}
        started = self._clock()
        encoded = {item.group.group_id: item for item in self._groups.encode(list(fresh.values()), self._groups_scored)}
        self._encode_s += self._clock() - started
        scored = []
        for group in groups:
            if group.group_id in self._recent:
                self._duplicates += 1
                scored.append(self._scored(group, self._recent[group.group_id], ()))
            else:
                scored.append(self._score_one(encoded[group.group_id]))
        return scored

    def _score_one(self, item: EncodedGroup) -> ScoredGroup:
        neighbours = self._neighbours(item)
        started = self._clock()
        if self._settings.order == "read_then_write":
            values = {name: term.read(item) for name, term in self._terms.items()}
            self._read_s += self._clock() - started
            for term in self._terms.values():
                term.write(item)
        else:
            values = {name: term.write_then_read(item) for name, term in self._terms.items()}
            self._read_s += self._clock() - started
        scores = self._scores(item, values["exploit"], values["explore"])
        self._version += 1
        self._groups_scored += 1
        self._rollouts_scored += len(item.rollouts)
        self._remember(item.group.group_id, scores)
        return self._scored(item.group, scores, neighbours)

    def _scores(self, item: EncodedGroup, exploit_N: NDArray[np.float64], explore_N: NDArray[np.float64]) -> Scores:
        """Of all rollouts: 0 for those that cannot be trained on."""
        bonus_N = self._bonus(item, exploit_N, explore_N)
        trainable_G = np.array([rollout.trainable for rollout in item.group.rollouts], np.bool_)
        spread = []
        for values_N in (exploit_N, explore_N, bonus_N):
            values_G = np.zeros(len(trainable_G), np.float32)
            values_G[trainable_G] = values_N
            spread.append(values_G)
        return Scores(spread[0], spread[1], spread[2], self._version)

    def _bonus(
        self, item: EncodedGroup, exploit_N: NDArray[np.float64], explore_N: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        settings = self._settings
        if settings.all_correct_groups == "off" and all(rollout.correct for rollout in item.rollouts):
            return np.zeros(len(item.rollouts))
        return mixed_bonus(settings, exploit_N, explore_N, item.group.policy_version, self._value_of_correct)

    def _remember(self, group_id: str, scores: Scores) -> None:
        self._recent[group_id] = scores
        while len(self._recent) > RECENT_GROUPS:
            self._recent.popitem(last=False)

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

    def _neighbours(self, item: EncodedGroup) -> tuple[Neighbour, ...]:
        """The newest response of the nearest success and of the nearest failure, for people."""
        return tuple(neighbour for term in self._terms.values() for neighbour in term.neighbours(item.key_D, 1))

    # -- looking in and keeping ------------------------------------------------------------------------------

    def report(self) -> MemoryReport:
        stores = [term.store for term in self._terms.values()]
        successes, failures = (self._terms[kind.name].store.num_episodes for kind in TERMS)
        return MemoryReport(
            memory_version=self._version,
            episodes=successes + failures,
            queries=sum(len(store) for store in stores),
            successes=successes,
            failures=failures,
            evicted=sum(store.evicted for store in stores),
            groups_scored=self._groups_scored,
            rollouts_scored=self._rollouts_scored,
            duplicates=self._duplicates,
            encode_s=self._encode_s,
            read_s=self._read_s,
        )

    def query(self, text: str, k: int) -> list[Neighbour]:
        """The newest response of each of the k nearest questions of either memory, nearest first."""
        vector_D = self._encoder.encode([text])[0]
        found = [neighbour for term in self._terms.values() for neighbour in term.neighbours(vector_D, k)]
        return sorted(found, key=lambda neighbour: -neighbour.cosine)[:k]

    def contents(self) -> MemoryContents:
        return describe(self._version, *(self._terms[kind.name].store for kind in TERMS))

    def save(self, directory: Path) -> str:
        """Write an atomic snapshot below `directory`; returns its name."""
        states = {kind: self._terms[kind.name].state() for kind in TERMS}
        state = MemoryState(
            encoder_fingerprint=self._encoder.fingerprint,
            memory_version=self._version,
            groups_scored=self._groups_scored,
            rollouts_scored=self._rollouts_scored,
            duplicates=self._duplicates,
            batch_key=self._groups.batch_key,
            windows={kind.name: of.window for kind, of in states.items()},
            next_ids={kind.store: of.next_id for kind, of in states.items()},
            evicted={kind.store: of.evicted for kind, of in states.items()},
            stores={kind.store: of.queries for kind, of in states.items()},
            recent={name: (s.exploit_G, s.explore_G, s.bonus_G, s.memory_version) for name, s in self._recent.items()},
            cache=self._groups.embeddings.contents(),
        )
        return write_snapshot(state, self._encoder.dimension, directory)

    def restore(self, snapshot: Path) -> None:
        """Become what was saved. Raises MemoryServiceError, unchanged, if the snapshot is damaged or another encoder's."""
        state = read_snapshot(snapshot)
        self._refuse_other_encoder(snapshot, state)
        self._terms = make_terms(self._settings, self._new_index)
        for kind in TERMS:
            self._terms[kind.name].restore(
                TermState(
                    queries=state.stores[kind.store],
                    next_id=state.next_ids[kind.store],
                    evicted=state.evicted[kind.store],
                    window=state.windows[kind.name],
                )
            )
        self._version, self._groups_scored = state.memory_version, state.groups_scored
        self._rollouts_scored, self._duplicates = state.rollouts_scored, state.duplicates
        self._groups.batch_key = state.batch_key
        self._groups.embeddings.restore(*state.cache)
        self._recent = OrderedDict((name, Scores(*values)) for name, values in state.recent.items())

    def _refuse_other_encoder(self, snapshot: Path, state: MemoryState) -> None:
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
