"""The episodic memory as a Ray actor: a process of its own whose one thread owns the index."""

from collections.abc import Sequence
from pathlib import Path

import ray

from contracts.process import ProcessId, own_process
from contracts.reports import MemoryReport
from contracts.rollout import RolloutGroup, ScoredGroup
from loading.load_errors import loading
from memory_service.config import MemorySettings
from memory_service.encoder import load_encoder
from memory_service.service import EpisodicMemory


@ray.remote(max_restarts=0, num_cpus=0)
class MemoryActor:
    """Calls are served one at a time, in the order in which they arrive."""

    def __init__(self, settings: MemorySettings, value_of_correct: float) -> None:
        self._inputs = (settings, value_of_correct)

    def process(self) -> ProcessId:
        """Answers before the encoder is loaded."""
        return own_process()

    def start(self) -> None:
        """Load the encoder; an error here is the call's own, one in a constructor would be a dead process. Raises LoadError."""
        settings, value_of_correct = self._inputs
        with loading("the episodic memory cannot start"):
            self._memory = EpisodicMemory(settings, load_encoder(settings), value_of_correct=value_of_correct)

    def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return self._memory.score(groups), self._memory.report()

    def save(self, directory: str) -> str:
        return self._memory.save(Path(directory))

    def restore(self, snapshot: str) -> None:
        self._memory.restore(Path(snapshot))
