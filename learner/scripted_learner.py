"""The real learner on a policy without a model, with the times and faults of its script."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from contracts.bonus_rule import DEFAULT_RULE, BonusRule
from contracts.errors import BadNumbersError
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup
from learner.config import LearnerSettings
from learner.credit import CreditedGroup
from learner.learner import Learner
from learner.old_checkpoint import refuse_old
from learner.scripted_policy import ScriptedPolicy
from learner.update_record import UpdateRecord


class ScriptedLearner(Learner):
    """sleep: takes seconds."""

    def __init__(
        self,
        settings: LearnerSettings,
        template_hash: str = "",
        max_new_tokens: int = 1,
        sleep: Callable[[float], None] = time.sleep,
        *,
        bonus_rule: BonusRule = DEFAULT_RULE,
    ) -> None:
        policy = ScriptedPolicy(max(1, settings.scripted.adapter_bytes // 4))
        super().__init__(policy, settings, template_hash, (), max_new_tokens, bonus_rule=bonus_rule)
        self._script, self._sleep = settings.scripted, sleep

    def step(self, groups: Sequence[ScoredGroup]) -> StepReport:
        """As Learner.step, after `learner.scripted.update_s`."""
        if self._script.update_s:
            self._sleep(self._script.update_s)
        return super().step(groups)

    def restore(self, directory: Path) -> None:
        """As Learner.restore. Refuses what the scripted learner of older commits wrote, which had no weights."""
        refuse_old(directory)
        super().restore(directory)

    def _sum_gradients(self, credited: Sequence[CreditedGroup], records: list[UpdateRecord]) -> None:
        draw = np.random.default_rng(self.policy_version + 1).random()
        if draw < self._script.bad_update_probability:
            raise BadNumbersError("scripted fault: the gradient is not finite")
        super()._sum_gradients(credited, records)
