"""What is set and changes nothing: found by the table of without_effect.py, refused or said. Pure.

    RunConfig -> silent_settings -> what is set and acts on nothing, with the reason
                 given by --set: refused (`refuse_silent`)       in the file: said by plan and train (`silent_lines`)

A file is written once and used with many a `--set memory.profile=off`: there its other settings may stand. What somebody
types beside it is meant to act. A setting counts as set where it is not what it would be if nobody had named it, and asks for something: 0, false and
"off" beside what is off are no contradiction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.config.set_options import key_of
from cluster.config.setting_names import leaf_settings
from cluster.config.without_effect import RULES
from contracts.errors import ConfigError
from learner.config import LearnerSettings
from memory_service.config import MemorySettings

if TYPE_CHECKING:
    from cluster.config.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class Silent:
    """names: settings that are set and change nothing. switch: what turned them off."""

    names: tuple[str, ...]
    switch: str
    refused: bool

    def __str__(self) -> str:
        return f"{', '.join(self.names)}: no effect, as {self.switch}"


def silent_settings(config: "RunConfig") -> list[Silent]:
    """What is set and acts on nothing, by reason; a setting is told of once, by the first rule."""
    left = _set_by_somebody(config)
    found = []
    for rule in RULES:
        names = tuple(name for name in left if rule.covers(name))
        if names and not rule.acts(config):
            found.append(Silent(names, rule.switch, rule.refused))
            left = [name for name in left if name not in names]
    return [*found, *_of_pools(config)]


def refuse_silent(config: "RunConfig", overrides: Sequence[str]) -> None:
    """Raises ConfigError for what a `--set` gives and would change nothing."""
    given = [key_of(override) for override in overrides]
    lines = []
    for silent in silent_settings(config):
        names = [n for n in silent.names if any(n == key or n.startswith(f"{key}.") for key in given)]
        if names and silent.refused:
            lines.append(f"--set {', '.join(names)}: would change nothing, as {silent.switch}")
    if lines:
        raise ConfigError("\n".join(lines))


def silent_lines(config: "RunConfig") -> list[str]:
    """For people, a line for each reason."""
    return [str(silent) for silent in silent_settings(config)]


def _set_by_somebody(config: "RunConfig") -> list[str]:
    """Names of settings that are not what they would be unnamed."""
    defaults: Mapping[str, Any] = {
        "memory": MemorySettings(profile=config.memory.profile),
        "learner": LearnerSettings(loss=config.learner.loss),
    }
    found = []
    for name, field in leaf_settings(type(config)):
        *sections, last = name.split(".")
        now: Any = config
        unnamed = defaults.get(sections[0]) if len(sections) == 1 else None
        for section in sections:
            now = getattr(now, section)
        default = field.get_default(call_default_factory=True) if unnamed is None else getattr(unnamed, last)
        value = getattr(now, last)
        if value != default and value and value != "off":
            found.append(name)
    return found


def _of_pools(config: "RunConfig") -> list[Silent]:
    """Entries of [[actors.pools]] with settings of another engine than the pool's."""
    found = []
    for pool in config.actors.pools:
        kind = config.actors.by_pool[pool.name]
        given = (name for name in ("vllm", "max_batch_rows") if getattr(pool, name) is not None)
        names = [name for name in given if name not in kind.engine_kind.reads]
        if names:
            where = tuple(f"actors.pools.{name}" for name in names)
            found.append(
                Silent(where, f"the workers of pool '{pool.name}' have the engine '{kind.engine}'", refused=True)
            )
    return found
