"""Settings that would break a run fail when they are read."""

import pytest
from pydantic import ValidationError

from contracts.errors import ConfigError
from learner.config import LearnerSettings
from learner.load import load_learner
from learner.schedule import SCHEDULES, learning_rate
from learner.scripted_learner import ScriptedLearner


def test_arrays_from_toml_become_tuples() -> None:
    assert LearnerSettings.model_validate({"lora_targets": ["q_proj"]}).lora_targets == ("q_proj",)


@pytest.mark.parametrize("targets", [["lm_head"], ["model.lm_head"]])
def test_adapting_the_head_is_refused(targets: list[str]) -> None:
    with pytest.raises(ValidationError, match="the head stays frozen"):
        LearnerSettings.model_validate({"lora_targets": targets})


def test_no_targets_are_refused() -> None:
    with pytest.raises(ValidationError, match="lora_targets is empty"):
        LearnerSettings.model_validate({"lora_targets": []})


def test_stopping_before_warning_is_refused() -> None:
    with pytest.raises(ValidationError, match="stop there or above"):
        LearnerSettings(mismatch_stop=0.01)


def test_a_former_setting_is_read_at_its_constant_and_refused_at_another_value() -> None:
    assert LearnerSettings.model_validate({"adam_beta1": 0.9}) == LearnerSettings()
    with pytest.raises(
        ValidationError, match=r"adam_beta1 = 0.8: no setting any more, it is always 0.9.*commit 09489b9"
    ):
        LearnerSettings.model_validate({"adam_beta1": 0.8})


def test_importance_cap_can_be_switched_off() -> None:
    assert LearnerSettings(importance_cap="off").importance_limit is None
    assert LearnerSettings().importance_limit == 2.0


def test_gspo_brings_its_own_range_and_mean_unless_others_are_given() -> None:
    unset = LearnerSettings.model_validate({"loss": "gspo"})
    assert (unset.clip_low, unset.clip_high, unset.loss_normalisation) == (3e-4, 4e-4, "rollouts")
    given = LearnerSettings(loss="gspo", clip_low=0.01, loss_normalisation="constant")
    assert (given.clip_low, given.clip_high, given.loss_normalisation) == (0.01, 4e-4, "constant")
    clipped = LearnerSettings()
    assert (clipped.clip_low, clipped.clip_high, clipped.loss_normalisation) == (0.2, 0.28, "tokens")


@pytest.mark.parametrize(("clip_high", "limit"), [(0.28, 2.0), (1.0, 2.0), (4.0, 5.0), (4, 5.0)])
def test_cispos_own_cap_is_never_cut_by_a_default(clip_high: float, limit: float) -> None:
    assert LearnerSettings.model_validate({"loss": "cispo", "clip_high": clip_high}).importance_limit == limit


def test_a_cap_that_would_cut_cispos_is_refused_with_the_commit_that_did() -> None:
    with pytest.raises(
        ConfigError, match=r"caps the ratio at 1 \+ clip_high = 5, and learner.importance_cap = 2 .*be586f9"
    ):
        LearnerSettings(loss="cispo", clip_high=4.0, importance_cap=2.0).refuse_cut_cap()
    LearnerSettings(loss="cispo", clip_high=4.0, importance_cap="off").refuse_cut_cap()
    LearnerSettings(loss="clipped", clip_high=4.0, importance_cap=2.0).refuse_cut_cap()


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in LearnerSettings.model_fields.values())


def test_model_named_scripted_loads_no_model() -> None:
    learner = load_learner(LearnerSettings(), "scripted", 0, "", (), 8)
    assert isinstance(learner, ScriptedLearner)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1.0, 1.0, 1.0, 1.0]), ("linear", [1.0, 0.75, 0.5, 0.25]), ("cosine", [1.0, 0.8536, 0.5, 0.1464])],
)
def test_schedules_over_four_updates(schedule: str, expected: list[float]) -> None:
    rates = [learning_rate(i, 4, 1.0, SCHEDULES[schedule], 0.0) for i in range(4)]
    assert rates == pytest.approx(expected, abs=1e-4)
    assert learning_rate(99, 4, 1.0, SCHEDULES[schedule], 0.0) == rates[-1]


def test_warm_up_rises_to_the_peak_and_never_is_zero() -> None:
    assert [learning_rate(i, 10, 1.0, SCHEDULES["constant"], 0.4) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(4, 10, 1.0, SCHEDULES["linear"], 0.4) == 1.0
