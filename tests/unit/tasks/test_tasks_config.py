"""The [task] section refuses what cannot work and says what to change."""

import pytest
from pydantic import ValidationError

from tasks.config import REWARD_NAMES, RewardPart, TaskSettings
from tasks.rewards import built_in


def test_defaults_are_the_quickstart() -> None:
    settings = TaskSettings()
    assert (settings.kind, settings.max_operand, settings.answer_form) == ("arithmetic", 20, "number")
    assert settings.rewards == (RewardPart(name="correctness", weight=1.0),)


def test_toml_lists_become_tuples_and_a_dump_reads_back_equal() -> None:
    settings = TaskSettings.model_validate(
        {"operations": ["+"], "rewards": [{"name": "correctness"}, {"name": "format", "weight": 0.5}]}
    )
    assert settings.operations == ("+",)
    assert [part.weight for part in settings.rewards] == [1.0, 0.5]
    assert TaskSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert TaskSettings.model_validate_json(settings.model_dump_json()) == settings


def test_every_field_has_a_one_line_description() -> None:
    for field in (*TaskSettings.model_fields.values(), *RewardPart.model_fields.values()):
        assert field.description
        assert "\n" not in field.description


def test_every_reward_name_is_built_in() -> None:
    assert all(callable(built_in(name)) for name in REWARD_NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "arithmetics"}, "did you mean 'arithmetic'"),
        ({"kind": "chess"}, "known: arithmetic"),
        ({"kind": "file"}, "set path or hub_dataset"),
        ({"kind": "file", "path": "a.jsonl", "hub_dataset": "b/c"}, "exactly one source"),
        ({"rewards": [{"name": "corectness"}]}, "did you mean 'correctness'"),
        ({"rewards": [{"name": "format"}, {"name": "format"}]}, "more than once"),
        ({"environment": "retry", "kind": "reasoning_gym"}, "environment 'single'"),
        ({"environment": "retry", "scorer": "a:b"}, "cannot use a scorer"),
        ({"max_operands": 10}, "Extra inputs"),
        ({"rewards": []}, "at least 1"),
        ({"operations": ["*"]}, "'\\+' or '-'"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskSettings.model_validate(values)


def test_the_small_arithmetic_world_holds_out_more_unless_told() -> None:
    assert TaskSettings().split_share == 0.35
    assert TaskSettings(kind="reasoning_gym").split_share == 0.1
    assert TaskSettings(held_out_share=0.2).split_share == 0.2
