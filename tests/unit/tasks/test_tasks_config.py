"""The [task] section refuses what cannot work and says what to change."""

import pytest
from pydantic import ValidationError

from contracts.ports import Answer
from contracts.problem import Problem
from tasks.config import FORM_REWARDS, REWARD_NAMES, RewardPart, TaskSettings
from tasks.rewards import RewardInput, built_in

PROBLEM = Problem("p", "What is 3 + 4?", "7", ())


def test_defaults_are_the_quickstart() -> None:
    settings = TaskSettings()
    assert (settings.kind, settings.max_operand, settings.answer_form) == ("arithmetic", 20, "number")
    assert settings.rewards == (RewardPart(name="correctness", weight=1.0),)


def test_toml_lists_become_tuples_and_a_dump_reads_back_equal() -> None:
    settings = TaskSettings.model_validate(
        {"operations": ["+", "-"], "rewards": [{"name": "correctness"}, {"name": "format", "weight": 0.5}]}
    )
    assert settings.operations == ("+", "-")
    assert [part.weight for part in settings.rewards] == [1.0, 0.5]
    assert TaskSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert TaskSettings.model_validate_json(settings.model_dump_json()) == settings


def test_every_field_has_a_one_line_description() -> None:
    for field in (*TaskSettings.model_fields.values(), *RewardPart.model_fields.values()):
        assert field.description
        assert "\n" not in field.description


def test_every_reward_name_is_built_in() -> None:
    assert all(callable(built_in(name)) for name in REWARD_NAMES)


def test_the_parts_of_form_are_those_that_right_and_wrong_answers_earn_alike() -> None:
    """What FORM_REWARDS says of each part, asked of the part itself: the same text, judged right and judged wrong."""
    text = "<think>\nso\n</think>\n<answer>\n7\n</answer>"
    right, wrong = (
        RewardInput(Answer(PROBLEM, text, 9, 20, truncated=False), "think_answer", "7", correct)
        for correct in (True, False)
    )
    of_value = {name for name in REWARD_NAMES if built_in(name)(right) != built_in(name)(wrong)}
    assert set(FORM_REWARDS) == set(REWARD_NAMES) - of_value


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
        ({"operations": ["+"]}, r"operations = \['\+'\]: no setting any more, it is always \('\+', '-'\)"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaskSettings.model_validate(values)


def test_the_small_arithmetic_world_holds_out_more_unless_told() -> None:
    assert TaskSettings().split_share == 0.35
    assert TaskSettings(kind="reasoning_gym").split_share == 0.1
    assert TaskSettings(held_out_share=0.2).split_share == 0.2
