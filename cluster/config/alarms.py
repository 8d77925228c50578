"""`[alarms]`: which failures of learning a run watches for, from where on, and what it then does. Loads without torch.

Warning is the rule. Pausing is for what surely wastes the days that follow: a broken verifier, answers of no length,
a policy that no longer samples anything new. A pause by mistake costs a night; a warning by mistake costs a line.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from contracts.settings import Settings

AlarmAction = Literal["off", "warn", "pause", "roll_back"]


class AlarmSettings(Settings):
    """A key named like an alarm is its action: off | warn | pause (checkpoint and stop) | roll_back. Shares lie in 0 to 1."""

    preflight_truncated: AlarmAction = Field("pause", description="first batch: hardly an answer ends by itself")
    preflight_truncated_above: float = Field(0.97, ge=0, le=1, description="share of rollouts that hit the limit")
    preflight_invalid: AlarmAction = Field("pause", description="first batch: answers could not be judged")
    preflight_invalid_above: float = Field(0.5, ge=0, le=1, description="share of rollouts with an invalid verdict")
    # A batch of a few hard problems is without variance by chance alone; `zero_variance` looks at many batches.
    preflight_zero_variance: AlarmAction = Field("warn", description="first batch: no group has a gradient")
    preflight_zero_variance_above: float = Field(0.98, ge=0, le=1, description="share of groups without variance")

    window_updates: int = Field(10, ge=2, description="updates over which values are averaged, at the start and now")
    solved_accuracy: float = Field(
        0.9, ge=0, le=1, description="training accuracy from which on a still policy is a success, not a collapse"
    )
    accuracy_gain: float = Field(0.05, ge=0, le=1, description="rise of training accuracy that counts as learning")

    truncated: AlarmAction = Field("warn", description="rollouts run into the token limit")
    truncated_above: float = Field(0.95, ge=0, le=1, description="share of rollouts, mean of the window")
    zero_variance: AlarmAction = Field("warn", description="groups give no gradient")
    zero_variance_above: float = Field(0.95, ge=0, le=1, description="share of groups, mean of the window")
    invalid: AlarmAction = Field("warn", description="rollouts cannot be trained on, or evaluation cannot judge them")
    invalid_above: float = Field(0.2, ge=0, le=1, description="share of rollouts in the window or the last evaluation")
    invalid_nearly_all: AlarmAction = Field("pause", description="hardly a rollout can be trained on")
    invalid_nearly_all_above: float = Field(0.9, ge=0, le=1, description="share of rollouts in the window")

    reward_errors: AlarmAction = Field("warn", description="a scorer or reward part fails over answers and counts 0")
    reward_errors_above: float = Field(0.1, ge=0, le=1, description="share of rollouts in the window, of one of them")

    reward_mode: AlarmAction = Field("warn", description="form parts of the reward rise, accuracy does not")
    reward_mode_after_updates: int = Field(50, ge=1, description="updates; form is often learned first, and may be")
    reward_mode_rise: float = Field(0.1, gt=0, description="rise of the form parts' weighted sum, in reward units")
    format_transition: AlarmAction = Field("warn", description="the form parts jump within three updates")
    format_transition_jump: float = Field(0.15, gt=0, description="size of the jump, in reward units")

    length_shrinks: AlarmAction = Field("warn", description="answers shrink and accuracy gains nothing by it")
    length_shrinks_below: float = Field(0.25, gt=0, lt=1, description="tokens now over tokens at the start")
    length_vanishes: AlarmAction = Field("pause", description="answers shrink to nothing")
    length_vanishes_below_tokens: float = Field(2.0, gt=0, description="mean tokens of an answer, its end included")
    length_runs_away: AlarmAction = Field("warn", description="answers grow and accuracy gains nothing by it")
    length_runs_away_above: float = Field(3.0, gt=1, description="tokens now over tokens at the start")

    entropy: AlarmAction = Field("pause", description="the policy samples always the same; both limits must be passed")
    entropy_below_share: float = Field(0.05, gt=0, lt=1, description="entropy now over entropy at the start")
    entropy_below: float = Field(0.01, gt=0, description="entropy per token, nats")

    train_up_eval_down: AlarmAction = Field("warn", description="training reward rises, held-out accuracy falls")
    train_up: float = Field(0.05, ge=0, description="rise of the task reward since the best evaluation, reward units")
    eval_down: float = Field(
        0.05, ge=0, le=1, description="fall of held-out accuracy; two standard errors where those are more"
    )
    memory_silent: AlarmAction = Field("warn", description="memory is switched on and changes next to nothing")
    memory_silent_below: float = Field(
        0.1, ge=0, le=1, description="share of the window's groups that it may act on whose advantages it changed"
    )
    memory_silent_groups: int = Field(20, ge=1, description="least groups of the window that it may act on")
    memory_dominant: AlarmAction = Field("warn", description="memory drowns the task where the task gives a signal")
    memory_dominant_above: float = Field(
        0.5, ge=0, le=1, description="its share of the squared advantage in groups with a task signal, window"
    )
    memory_dominant_groups: int = Field(20, ge=1, description="least groups of the window with a task signal")

    @model_validator(mode="before")
    @classmethod
    def _names_of_57c9e8c(cls, values: Any) -> Any:
        """`intrinsic_share` compared means, which a bonus that moves nothing has too. Its action is memory_dominant's; its
        limits are of another quantity and go."""
        if not isinstance(values, dict):
            return values
        old = ("intrinsic_share", "intrinsic_share_above", "intrinsic_share_after_updates")
        kept = {name: value for name, value in values.items() if name not in old}
        action = values.get("intrinsic_share")
        return kept if action is None else {"memory_dominant": action} | kept
