"""How memory's bonus reaches the advantages: settings of `[memory]` that only the learner can apply.

Whether a group has a task signal is known where its task rewards are final (an overlong penalty is the learner's), so the
rule travels to the learner once, at its construction, and every group carries nothing but its bonus and its stage.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Where(StrEnum):
    """Which rollouts a bonus is paid to (`memory.where`)."""

    EVERYWHERE = "everywhere"
    NO_TASK_SIGNAL = "no_task_signal"
    RIGHT_ANSWERS = "right_answers"
    WRONG_ANSWERS = "wrong_answers"


class NoSignal(StrEnum):
    """What a bonus becomes in a group whose task rewards are all equal (`memory.no_signal`)."""

    CENTRED = "centred"
    NORMALISED = "normalised"


@dataclass(frozen=True, slots=True)
class BonusRule:
    """The defaults are what a run of commit 57c9e8c did.

    no_signal_weight: advantage per unit of reward under CENTRED.
    all_correct: groups with nothing but right answers may earn a bonus.
    keeps_order: after normalisation too, no bonus may outweigh a right answer (mix = "scaled").
    from_version, until_version: policy versions between which memory is switched on: past an explore warm-up that leaves
        nothing, before an annealing that has ended, never where the weights are 0.
    """

    where: Where = Where.EVERYWHERE
    no_signal: NoSignal = NoSignal.NORMALISED
    no_signal_weight: float = 1.0
    all_correct: bool = True
    keeps_order: bool = False
    from_version: int = 0
    until_version: float = math.inf

    def is_on(self, policy_version: int) -> bool:
        return self.from_version <= policy_version < self.until_version


DEFAULT_RULE = BonusRule()
