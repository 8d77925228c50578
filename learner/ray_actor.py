"""The learner as a Ray actor: placement and threads, nothing else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from contracts.adapter import Adapter
from contracts.bonus_rule import BonusRule
from contracts.process import ProcessId, own_process
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup
from learner.config import LearnerSettings
from learner.load import load_learner


@ray.remote(max_restarts=0, num_cpus=0)
class LearnerActor:
    """One thread owns the policy."""

    def __init__(
        self,
        settings: LearnerSettings,
        model_path: str,
        seed: int,
        template_hash: str,
        probe_tokens: Sequence[NDArray[np.int32]],
        max_new_tokens: int,
        bonus_rule: BonusRule,
    ) -> None:
        self._inputs = (settings, model_path, seed, template_hash, probe_tokens, max_new_tokens, bonus_rule)

    def process(self) -> ProcessId:
        """Answers before the model is loaded."""
        return own_process()

    def start(self) -> None:
        """Load the model; an error here is the call's own, one in a constructor would be a dead process. Raises LoadError."""
        self._learner = load_learner(*self._inputs)

    def notes(self) -> tuple[str, ...]:
        return self._learner.notes

    def publish(self) -> Adapter:
        return self._learner.publish()

    def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report = self._learner.step(groups)
        return report, self._learner.publish()

    def save(self, directory: str) -> None:
        self._learner.save(Path(directory))

    def roll_back(self, directory: str) -> Adapter:
        self._learner.roll_back(Path(directory))
        return self._learner.publish()

    def restore(self, directory: str) -> None:
        self._learner.restore(Path(directory))
