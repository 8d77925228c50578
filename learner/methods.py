"""The methods that `[learner]` names: an entry of a table, or a function of the user's as `FILE.py:name`.

    learner.advantage   rewards_G -> advantages_G                      advantages.ESTIMATORS
    learner.loss        PolicyTokens, RatioLimits -> TokenWeights      losses.LOSSES
    learner.schedule    progress in [0, 1) -> share of the peak rate   schedule.SCHEDULES

What a user's function returns is checked where it is used: a wrong shape would train on anything.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from contracts.errors import ConfigError
from learner.advantages import ESTIMATORS, Estimator
from learner.config import LearnerSettings
from learner.schedule import SCHEDULES, Shape
from loading.dotted_path import is_dotted, load_dotted
from loading.users_code import call_or_stop

Method = TypeVar("Method")


@cache
def advantage_of(name: str) -> Estimator:
    """Raises ConfigError where the user's function is not there."""
    if not is_dotted(name):
        return _entry(ESTIMATORS, name, "learner.advantage")
    function = load_dotted(name, "learner.advantage")

    def checked(rewards_G: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.asarray(call_or_stop(f"learner.advantage '{name}'", function, rewards_G.copy()), np.float64)
        if found.shape != rewards_G.shape or not np.isfinite(found).all():
            raise ConfigError(
                f"learner.advantage '{name}' returned {found!r:.120} for {len(rewards_G)} rewards; it must return as many "
                "finite numbers"
            )
        return found

    return checked


@cache
def schedule_of(name: str) -> Shape:
    """Raises ConfigError where the user's function is not there."""
    if not is_dotted(name):
        return _entry(SCHEDULES, name, "learner.schedule")
    function = load_dotted(name, "learner.schedule")

    def checked(progress: float) -> float:
        share = float(call_or_stop(f"learner.schedule '{name}'", function, progress))
        if not 0 < share <= 1:
            raise ConfigError(
                f"learner.schedule '{name}' returned {share} at progress {progress:.3f}; it must be in (0, 1]"
            )
        return share

    return checked


def refuse_missing(settings: LearnerSettings) -> None:
    """Raises ConfigError for a user's method that is not there. Loads without torch, unless the user's file does not."""
    named = {"advantage": settings.advantage, "loss": settings.loss, "schedule": settings.schedule}
    for setting, name in named.items():
        if is_dotted(name):
            load_dotted(name, f"learner.{setting}")


def _entry(table: Mapping[Any, Method], name: str, setting: str) -> Method:
    if name not in table:
        raise ConfigError(f"{setting} = '{name}': there are {', '.join(table)}, or your own function as FILE.py:name")
    return table[name]
