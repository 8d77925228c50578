"""From settings to a learner: the one place that knows which learners exist."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.bonus_rule import DEFAULT_RULE, BonusRule
from contracts.ports import PolicyLearner
from learner.config import LearnerSettings
from learner.methods import refuse_missing
from loading.load_errors import loading

SCRIPTED_MODEL = "scripted"


def load_learner(
    settings: LearnerSettings,
    model_path: str,
    seed: int,
    template_hash: str,
    probe_tokens: Sequence[NDArray[np.int32]],
    max_new_tokens: int,
    bonus_rule: BonusRule = DEFAULT_RULE,
) -> PolicyLearner:
    """The learner of this process; sets its torch threads. model_path "scripted" needs no model.

    Raises LoadError where the model cannot be loaded, or not be trained as it should.
    """
    refuse_missing(settings)
    if model_path == SCRIPTED_MODEL:
        from learner.scripted_learner import ScriptedLearner

        return ScriptedLearner(settings, template_hash, max_new_tokens, bonus_rule=bonus_rule)
    with loading(f"the learner cannot train {model_path}"):
        # Imported here: a scripted run never loads transformers.
        from learner.learner import Learner
        from learner.policy import LoraPolicy

        policy = LoraPolicy.load(model_path, settings, seed)
        return Learner(policy, settings, template_hash, probe_tokens, max_new_tokens, bonus_rule=bonus_rule)
