"""The whole configuration: every owner's section, put together, read from one TOML file.

    TOML file + --set section.key=value  ->  RunConfig (frozen, strict)  ->  config.toml in the run directory

Loads without torch and Ray. Mistakes come back as one ConfigError that names file, section, line and the
nearest known key.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator

from actors.config import LEAST_ADAPTERS_KEPT, ActorSettings
from cluster.config.alarms import AlarmSettings
from cluster.config.cluster import ClusterSettings
from cluster.config.mistakes import explain_all
from cluster.config.notify import NotifySettings
from cluster.config.paths import begun_in, place_paths
from cluster.config.resources import ResourceSettings
from cluster.config.run_folder import is_run
from cluster.config.set_options import key_of, lay_over, take_away
from cluster.config.silent_settings import refuse_silent
from cluster.config.supervision import SupervisionSettings
from contracts.errors import ConfigError
from contracts.settings import Former, Settings
from learner.config import LearnerSettings
from memory_service.config import MemorySettings
from tasks.config import TaskSettings

MAX_CONFIG_BYTES = 2**20
MAX_DEPTH = 32
MAX_PROBLEMS_SHOWN = 50


class ModelSettings(Settings):
    """`[model]`: the language model."""

    name: str = Field(
        "smollm2-135m-instruct",
        description="hub id, folder, 'smollm2-135m-instruct' (unpacked from its package), or 'scripted' (no model)",
    )

    @property
    def scripted(self) -> bool:
        return self.name == "scripted"


class EvalSettings(Settings):
    """`[eval]`: held-out evaluation; task reward only, greedy, on leases of its own."""

    problems: int = Field(200, ge=0, description="held-out problems of an evaluation; 0 turns it off")
    every_updates: int = Field(10, ge=0, description="updates between evaluations; 0: only before and after")
    max_new_tokens: int | None = Field(None, ge=1, description="answer limit; unset: as in training")
    generous_max_new_tokens: int | None = Field(
        None, ge=1, description="second limit, before and after training only: shows what is learned beyond brevity"
    )
    pass_at_k: int = Field(0, ge=0, description="samples per problem for pass@k; 0 turns it off")
    pass_at_k_problems: int = Field(50, ge=1, description="held-out problems for pass@k")


class RunSettings(Settings):
    """`[run]`: name, place and seed."""

    name: str = Field(
        "run",
        description="folder below `directory`: no slashes, and no dot, tilde, hyphen or space to begin with",
    )
    directory: str = Field("runs", description="where runs are kept")
    seed: int = Field(0, ge=0, description="everything random derives from it")

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if "/" in name or "\\" in name:
            raise ValueError(
                f"the name '{name:.110}' holds a slash: it is one folder below run.directory, which takes the rest of the path "
                '(run.directory = "a" and run.name = "b" for a/b)'
            )
        if not re.fullmatch(r"[^\s.~-][^\x00-\x1f\x7f]{0,99}", name):
            raise ValueError(
                f"the name {name[:110]!r} is no folder's: 1 to 100 characters without control characters, and no dot, tilde, "
                "hyphen or space to begin with"
            )
        return name


class RunConfig(Settings):
    """One run, whole."""

    run: RunSettings = Field(default_factory=RunSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    task: TaskSettings = Field(default_factory=TaskSettings)
    actors: ActorSettings = Field(default_factory=ActorSettings)
    memory: MemorySettings = Field(default_factory=MemorySettings)
    learner: LearnerSettings = Field(default_factory=LearnerSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    eval: EvalSettings = Field(default_factory=EvalSettings)
    supervision: SupervisionSettings = Field(default_factory=SupervisionSettings)
    alarms: AlarmSettings = Field(default_factory=AlarmSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)

    @model_validator(mode="after")
    def _scripted_goes_together(self) -> "RunConfig":
        kind = self.actors.engine_kind
        if not (kind.takes_script if self.model.scripted else kind.takes_model):
            raise ValueError(
                f"model.name = '{self.model.name}' and actors.engine = '{self.actors.engine}' do not fit: the scripted "
                "engine has no model. Set both to 'scripted' or neither"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _read_adapters_kept(cls, values: Any, handler: ModelWrapValidatorHandler["RunConfig"]) -> "RunConfig":
        """`actors.adapters_kept` is a former setting that follows from another section."""
        actors = values.get("actors") if isinstance(values, dict) else None
        if not isinstance(actors, dict) or "adapters_kept" not in actors:
            return handler(values)
        left = {name: value for name, value in actors.items() if name != "adapters_kept"}
        config = handler(values | {"actors": left})
        instead = f"It follows from learner.max_policy_lag = {config.learner.max_policy_lag}: leave it out"
        rule = Former(lambda found: found.adapters_kept, "9962a33", instead, follows=True)
        rule.refuse_other("actors.adapters_kept", actors["adapters_kept"], config.adapters_kept)
        return config

    @property
    def run_path(self) -> Path:
        return Path(self.run.directory) / self.run.name

    @property
    def adapters_kept(self) -> int:
        """Policy versions that an engine serves at the same time: the new one loads before the oldest goes."""
        return max(LEAST_ADAPTERS_KEPT, self.learner.max_policy_lag + 2)

    @property
    def slots(self) -> int:
        """Problems that may be in flight at a time (docs/architecture.md)."""
        return (self.learner.max_policy_lag + 1) * self.cluster.groups_per_batch

    @property
    def value_of_correct(self) -> float:
        """Task reward that a right answer earns over a wrong one: the weight of `correctness`, 1 without that part."""
        weights = (part.weight for part in self.task.rewards if part.name == "correctness" and part.weight > 0)
        return next(weights, 1.0)

    @property
    def eval_max_new_tokens(self) -> int:
        return self.eval.max_new_tokens or self.actors.max_new_tokens


def load_config(path: Path, overrides: Sequence[str] = (), unset: Sequence[str] = ()) -> RunConfig:
    """Read, take away `unset`, override, check. Raises ConfigError with everything that is wrong, not just the first thing.

    unset: keys or sections that are to be as if the file did not name them.
    """
    text = _read(path)
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside syntax: numbers of thousands of digits, endless nesting
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    begun = begun_in(raw, path)
    for key in unset:
        take_away(raw, RunConfig, key)
    lay_over(raw, RunConfig, overrides)
    _refuse_depth(path, raw)
    place_paths(raw, path, [key_of(override) for override in overrides], begun)
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        lines = explain_all(path, text, RunConfig, overrides, error.errors()[:MAX_PROBLEMS_SHOWN])
        more = error.error_count() - MAX_PROBLEMS_SHOWN
        lines += [f"{path}: and {more} more of the kind"] if more > 0 else []
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
    refuse_silent(config, overrides)
    return config


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as TOML that `load_config` reads back to an equal object."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path}: more than {MAX_CONFIG_BYTES} bytes: no configuration is as long; give a TOML file"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.toml"))) or "none in ./configs"
        raise ConfigError(f"{path}: no such file. Configurations here: {known}") from None
    except IsADirectoryError:
        what = (
            f"a run: memr resume {path} goes on with it, and its configuration is {path}/config.toml"
            if is_run(path)
            else "a folder; give a TOML file"
        )
        raise ConfigError(f"{path} is {what}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _refuse_depth(path: Path, raw: dict[str, Any]) -> None:
    """Tables within tables, level by level: what walks the settings later does so by calling itself."""
    level: list[Any] = [raw]
    for _ in range(MAX_DEPTH):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [child for values in inner for child in values if isinstance(child, dict | list)]
        if not level:
            return
    raise ConfigError(f"{path}: tables or lists more than {MAX_DEPTH} deep; no setting is")
