"""Settings that became constants: an older file or run may name each at the value it has now; another value is refused."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from actors.config import ActorSettings
from cluster.config.resources import ResourceSettings
from cluster.config.run_config import RunConfig, load_config
from cluster.config.setting_names import leaf_settings
from cluster.config.supervision import SupervisionSettings
from contracts.errors import ConfigError
from contracts.settings import Settings
from learner.config import LearnerSettings

STORED = (Path(__file__).parents[2] / "data" / "configs" / "memr_57c9e8c.toml").read_text()


def former_settings(root: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name of every former setting, and its value in a run that sets nothing."""
    unset: Any = root()
    yield from ((prefix + name, getattr(unset, name)) for name in root.former())
    for name, field in root.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from former_settings(field.annotation, f"{prefix}{name}.")


FORMER = dict(former_settings(RunConfig))


def names_in(raw: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all values."""
    for name, value in raw.items():
        if isinstance(value, dict):
            yield from names_in(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def file_with(tmp_path: Path, name: str, value: Any) -> Path:
    raw: dict[str, Any] = {}
    *sections, last = name.split(".")
    table = raw
    for section in sections:
        table = table.setdefault(section, {})
    table[last] = list(value) if isinstance(value, tuple) else value
    path = tmp_path / "c.toml"
    path.write_text(tomli_w.dumps(raw))
    return path


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + type(value)(1) if isinstance(value, int | float) else value[:1]


@pytest.mark.parametrize("name", FORMER)
def test_a_former_setting_is_read_at_its_value_and_refused_at_another(name: str, tmp_path: Path) -> None:
    value = FORMER[name]
    assert load_config(file_with(tmp_path, name, value)) == RunConfig()
    with pytest.raises(ConfigError, match=r"no setting any more, it is .*\(commit [0-9a-f]{7} is the last") as told:
        load_config(file_with(tmp_path, name, another(value)))
    assert name.rpartition(".")[2] in str(told.value)


def test_every_key_of_a_stored_configuration_is_a_setting_or_a_former_one_or_translated() -> None:
    translated = {"alarms.intrinsic_share", "alarms.intrinsic_share_above", "alarms.intrinsic_share_after_updates"}
    known = dict(leaf_settings(RunConfig)).keys() | FORMER.keys() | translated | {"actors.adapters_kept"}
    stored = {name for name in names_in(tomllib.loads(STORED)) if not name.startswith("task.generator_params.")}
    assert stored <= known
    assert len(stored & FORMER.keys()) > 60


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("actors.scripted.raise_probability", 0.1, r"Write faults = \{raise = \.\.\}"),
        ("actors.vllm.start_s", 900.0, r"Set cluster\.worker_start_s"),
        ("resources.prune_free_bytes", 2**30, r"Set stop_free_bytes to half of it"),
        ("memory.own_group_as_neighbours", True, r"set order = 'write_then_read'"),
        ("cluster.drain_s", 1.0, r"Leave it out"),
    ],
)
def test_a_refusal_says_what_to_write_now(name: str, value: Any, instead: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=instead):
        load_config(file_with(tmp_path, name, value))


def test_what_follows_from_another_setting_is_read_where_both_agree() -> None:
    marks = {"stop_free_bytes": 100, "prune_free_bytes": 200, "transcripts_free_bytes": 400}
    assert ResourceSettings.model_validate(marks).prune_free_bytes == 200
    with pytest.raises(ValueError, match=r"prune_free_bytes = 300: .* it is 200 here"):
        ResourceSettings.model_validate(marks | {"prune_free_bytes": 300})


def test_a_check_and_the_grace_before_it_take_no_longer_than_a_lease() -> None:
    short = ActorSettings.model_validate({"lease_deadline_s": 3.0, "health_deadline_s": 60.0})
    assert (short.check_deadline_s, short.grace_s) == (3.0, 3.0)
    assert (ActorSettings().check_deadline_s, ActorSettings().grace_s) == (60.0, 30.0)


def test_a_former_setting_can_be_read_and_not_set() -> None:
    learner = LearnerSettings()
    assert learner.adam_beta1 == LearnerSettings.adam_beta1 == 0.9
    with pytest.raises(AttributeError, match="cannot be set"):
        learner.adam_beta1 = 0.8  # type: ignore[misc]
    assert "adam_beta1" not in learner.model_dump()


def test_each_names_the_last_commit_that_took_another_value() -> None:
    with pytest.raises(ValueError, match="commit 09489b9"):
        SupervisionSettings.model_validate({"run_restart_window_s": 1.0})
    with pytest.raises(ValueError, match="commit 9962a33"):
        SupervisionSettings.model_validate({"stop_s": 1.0})
