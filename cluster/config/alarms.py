"""`[alarms]`: which failures of learning a run watches for, from where on, and what it then does. Loads without torch.

Warning is the rule. Pausing is for what surely wastes the days that follow: a broken verifier, answers of no length,
a policy that no longer samples anything new. A pause by mistake costs a night; a warning by mistake costs a line.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contracts.settings import Settings, constant

AlarmAction = Literal["off", "warn", "pause", "roll_back"]


class AlarmSettings(Settings):
    """A key named like an alarm is its action: off | warn | pause (checkpoint and stop) | roll_back. Shares lie in 0 to 1."""

    window_updates: ClassVar = constant(10, last="9962a33")
    """Updates over which values are averaged, at the start and now."""
    preflight_truncated_above: ClassVar = constant(0.97, last="09489b9")
    """Share of rollouts that hit the limit."""
    preflight_invalid_above: ClassVar = constant(0.5, last="09489b9")
    """Share of rollouts with an invalid verdict."""
    preflight_zero_variance_above: ClassVar = constant(0.98, last="09489b9")
    """Share of groups without variance."""
    solved_accuracy: ClassVar = constant(0.9, last="09489b9")
    """Training accuracy from which on a still policy is a success, not a collapse."""
    accuracy_gain: ClassVar = constant(0.05, last="09489b9")
    """Rise of training accuracy that counts as learning."""
    truncated_above: ClassVar = constant(0.95, last="09489b9")
    """Share of rollouts, mean of the window."""
    zero_variance_above: ClassVar = constant(0.95, last="09489b9")
    """Share of groups, mean of the window."""
    invalid_above: ClassVar = constant(0.2, last="09489b9")
    """Share of rollouts in the window or the last evaluation."""
    invalid_nearly_all_above: ClassVar = constant(0.9, last="09489b9")
    """Share of rollouts in the window."""
    reward_errors_above: ClassVar = constant(0.1, last="09489b9")
    """Share of rollouts in the window, of one of them."""
    reward_mode_after_updates: ClassVar = constant(50, last="09489b9")
    """Updates; form is often learned first, and may be."""
    reward_mode_rise: ClassVar = constant(0.1, last="09489b9")
    """Rise of the form parts' weighted sum, in reward units."""
    format_transition_jump: ClassVar = constant(0.15, last="09489b9")
    """Size of the jump, in reward units."""
    length_shrinks_below: ClassVar = constant(0.25, last="09489b9")
    """Tokens now over tokens at the start."""
    length_vanishes_below_tokens: ClassVar = constant(2.0, last="09489b9")
    """Mean tokens of an answer, its end included."""
    length_runs_away_above: ClassVar = constant(3.0, last="09489b9")
    """Tokens now over tokens at the start."""
    entropy_below_share: ClassVar = constant(0.05, last="09489b9")
    """Entropy now over entropy at the start."""
    entropy_below: ClassVar = constant(0.01, last="09489b9")
    """Entropy per token, nats."""
    train_up: ClassVar = constant(0.05, last="09489b9")
    """Rise of the task reward since the best evaluation, reward units."""
    eval_down: ClassVar = constant(0.05, last="09489b9")
    """Fall of held-out accuracy; two standard errors where those are more."""
    memory_silent_below: ClassVar = constant(0.1, last="09489b9")
    """Share of the window's groups that it may act on whose advantages it changed."""
    memory_silent_groups: ClassVar = constant(20, last="09489b9")
    """Least groups of the window that it may act on."""
    memory_dominant_above: ClassVar = constant(0.5, last="09489b9")
    """Its share of the squared advantage in groups with a task signal, window."""
    memory_dominant_groups: ClassVar = constant(20, last="09489b9")
    """Least groups of the window with a task signal."""

    preflight_truncated: AlarmAction = Field("pause", description="first batch: hardly an answer ends by itself")
    preflight_invalid: AlarmAction = Field("pause", description="first batch: answers could not be judged")
    # A batch of a few hard problems is without variance by chance alone; `zero_variance` looks at many batches.
    preflight_zero_variance: AlarmAction = Field("warn", description="first batch: no group has a gradient")

    truncated: AlarmAction = Field("warn", description="rollouts run into the token limit")
    zero_variance: AlarmAction = Field("warn", description="groups give no gradient")
    invalid: AlarmAction = Field("warn", description="rollouts cannot be trained on, or evaluation cannot judge them")
    invalid_nearly_all: AlarmAction = Field("pause", description="hardly a rollout can be trained on")

    reward_errors: AlarmAction = Field("warn", description="a scorer or reward part fails over answers and counts 0")

    reward_mode: AlarmAction = Field("warn", description="form parts of the reward rise, accuracy does not")
    format_transition: AlarmAction = Field("warn", description="the form parts jump within three updates")

    length_shrinks: AlarmAction = Field("warn", description="answers shrink and accuracy gains nothing by it")
    length_vanishes: AlarmAction = Field("pause", description="answers shrink to nothing")
    length_runs_away: AlarmAction = Field("warn", description="answers grow and accuracy gains nothing by it")

    entropy: AlarmAction = Field("pause", description="the policy samples always the same; both limits must be passed")

    train_up_eval_down: AlarmAction = Field("warn", description="training reward rises, held-out accuracy falls")
    memory_silent: AlarmAction = Field("warn", description="memory is switched on and changes next to nothing")
    memory_dominant: AlarmAction = Field("warn", description="memory drowns the task where the task gives a signal")

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
