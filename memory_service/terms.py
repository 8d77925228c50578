"""The terms of the intrinsic reward: each one a store of episodes, a sliding window and a formula.

    exploit    successes    near the mean of past successes is good
    explore    failures     unlike past failures is good

A term reads a group against its store, takes in those rollouts of the group that it remembers, and saves its state. What
a read means is in reading.py; which formulas there are in formulas.py; what the terms add up to is in bonus.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.ports import VectorIndex
from contracts.rollout import Neighbour
from memory_service.config import MemorySettings
from memory_service.episodes import Episode, EpisodeStore, Query
from memory_service.formulas import Formula, exploit_formula, explore_formula
from memory_service.group_encoder import EncodedGroup
from memory_service.normaliser import SlidingMinMax
from memory_service.reading import exploit_rewards, explore_rewards

Rewards = Callable[
    [MemorySettings, Formula, EpisodeStore, SlidingMinMax, NDArray[np.float32], NDArray[np.float32], int],
    NDArray[np.float64],
]


@dataclass(frozen=True, slots=True)
class TermKind:
    """store: its name in snapshots. correct: which rollouts it remembers. formula: that the settings name."""

    name: str
    store: str
    correct: bool
    rewards: Rewards
    formula: Callable[[MemorySettings], Formula]


TERMS = (
    TermKind("exploit", "success", True, exploit_rewards, exploit_formula),
    TermKind("explore", "failure", False, explore_rewards, explore_formula),
)


@dataclass(frozen=True, slots=True)
class TermState:
    """A term as a snapshot keeps it. window: raw values, oldest first."""

    queries: Sequence[Query]
    next_id: int
    evicted: int
    window: Sequence[float]


class Term:
    """Not thread-safe: one owner calls it. Raises ConfigError for a user's formula that is not there."""

    def __init__(self, kind: TermKind, settings: MemorySettings, index: VectorIndex) -> None:
        self.kind = kind
        self._settings, self._formula = settings, kind.formula(settings)
        self.store = EpisodeStore(index, settings.max_queries, settings.max_responses_per_query)
        self._window = SlidingMinMax(settings.window, settings.normaliser_eps, settings.normaliser_range_floor)

    def read(self, item: EncodedGroup) -> NDArray[np.float64]:
        """[N] in [0, 1], one per trainable rollout. Raw values enter the window."""
        return self._read(item, item.answers_ND)

    def write(self, item: EncodedGroup) -> None:
        """Stores those rollouts that this term remembers, as one write."""
        self._write(item, [i for i, rollout in enumerate(item.rollouts) if rollout.correct is self.kind.correct])

    def write_then_read(self, item: EncodedGroup) -> NDArray[np.float64]:
        """[N], rollout by rollout, each after its own write: the released code's order."""
        values_N = np.zeros(len(item.rollouts))
        for i, rollout in enumerate(item.rollouts):
            if rollout.correct is self.kind.correct:
                self._write(item, [i])
            values_N[i] = self._read(item, item.answers_ND[i : i + 1])[0]
        return values_N

    def neighbours(self, vector_D: NDArray[np.float32], k: int) -> list[Neighbour]:
        """The newest response of each of the k nearest questions, nearest first."""
        return [self._neighbour(query, cosine) for query, cosine in self.store.nearest(vector_D, k)]

    def state(self) -> TermState:
        return TermState(list(self.store), self.store.next_id, self.store.evicted, self._window.values)

    def restore(self, state: TermState) -> None:
        """Into a term that is empty."""
        self.store.restore(state.queries, state.next_id)
        self.store.evicted = state.evicted
        self._window.restore(state.window)

    def _read(self, item: EncodedGroup, answers_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        version = item.group.policy_version
        return self.kind.rewards(
            self._settings, self._formula, self.store, self._window, item.key_D, answers_ND, version
        )

    def _write(self, item: EncodedGroup, chosen: Sequence[int]) -> None:
        # Copies: a view would keep the vectors of the whole call alive.
        episodes = [
            Episode(item.rollouts[i].rollout_id, item.rollouts[i].text, item.answers_ND[i].copy()) for i in chosen
        ]
        self.store.write(item.key, item.key_D, episodes)

    def _neighbour(self, query: Query, cosine: float) -> Neighbour:
        newest = query.episodes[-1]
        return Neighbour(newest.rollout_id, query.question, newest.response, self.kind.correct, cosine)


def make_terms(settings: MemorySettings, new_index: Callable[[], VectorIndex]) -> Mapping[str, Term]:
    """Empty ones, by name."""
    return {kind.name: Term(kind, settings, new_index()) for kind in TERMS}
