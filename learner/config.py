"""Settings of the learner ([learner]): what an update is, and how it is computed. Loads without torch.

docs/algorithms.md has every formula with its source, docs/coming_from_trl.md the same settings under TRL's names.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import ConfigError
from contracts.settings import Settings, UsersCode, constant

Advantage = Literal["grpo", "dr_grpo", "rloo", "loop"]
Loss = Literal["clipped", "cispo", "gspo"]
Schedule = Literal["constant", "linear", "cosine"]
KlEstimator = Literal["weighted_k3", "k3"]

_OF_GSPO = {"clip_low": 3e-4, "clip_high": 4e-4, "loss_normalisation": "rollouts"}
"""As published (arXiv 2507.18071, section 5.1): ratios of whole rollouts are that close to 1."""

_CAP, _CISPO_CLIP_HIGH = 2.0, 0.28

_ONLY_STORED_RUNS_SAY_ALL = frozenset(
    {"loss", "clip_low", "clip_high", "importance_cap", "loss_normalisation", "kl_weight", "kl_reference"}
    | {"moving_average_decay", "overlong_penalty", "adam_beta2", "logprob_chunk_tokens", "mismatch_stop", "scripted"}
)
"""A run writes every setting into its config.toml, and up to commit be586f9 there was no kl_estimator among them."""


class ScriptedLearnerSettings(Settings):
    """[learner.scripted]: times and faults of the learner that goes with the scripted engine; its policy has no model."""

    update_s: float = Field(default=0.0, ge=0, description="Simulated time of one update, in seconds.")
    adapter_bytes: int = Field(default=1024, ge=4, description="Size of the published weights.")
    bad_update_probability: float = Field(default=0.0, ge=0, le=1, description="An update is skipped: bad gradient.")


class LearnerSettings(Settings):
    """[learner]: how scored groups become the next policy version."""

    adam_beta1: ClassVar = constant(0.9, last="09489b9")
    """Decay of AdamW's first moment."""
    mismatch_warn: ClassVar = constant(0.05, last="09489b9")
    """Mean |log p learner - log p engine| at lag 0 that the run warns about."""
    max_relative_change: ClassVar = constant(0.5, last="09489b9")
    """Largest L2 norm of an update's change over the adapter's own that is let through."""

    num_updates: int = Field(100, ge=1, description="Policy updates of the whole run; the schedule ends there.")
    max_policy_lag: int = Field(2, ge=0, description="Oldest policy that still trains, in versions; 0 is synchronous.")

    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="Data type of base weights and activations.")
    device: Literal["cpu", "cuda", "auto"] = Field("auto", description="Where the model runs.")
    gpus: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU; unset: a whole one, or less where device = auto finds too few."
    )
    torch_threads: int = Field(2, ge=1, description="CPU threads of the learner's matrix products.")
    shared_prefix: bool = Field(
        True, description="Run each prompt once per group, on models where that was shown right at the start."
    )
    micro_batch_tokens: int = Field(1280, ge=1, description="Tokens of one forward and backward; bounds memory.")
    logprob_chunk_tokens: int = Field(128, ge=1, description="Rows of the [tokens, vocabulary] matrix alive at once.")

    lora_r: int = Field(16, ge=1, description="Rank of the adapter.")
    lora_alpha: float = Field(32.0, gt=0, description="The adapter is scaled by lora_alpha / lora_r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter's first matrix.")
    lora_targets: Literal["all_linear"] | tuple[str, ...] = Field(
        "all_linear", description="Adapted modules: every linear layer but lm_head, or names such as q_proj."
    )

    learning_rate: float = Field(1e-4, ge=0, le=1, description="Peak learning rate of AdamW; LoRA wants 1e-6 to 2e-3.")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="Decay of AdamW's second moment.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay on the adapter.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients of larger L2 norm are scaled down to it.")
    schedule: Schedule | UsersCode = Field(
        "constant",
        description="Learning rate after the warm-up: constant, or down to 0 at num_updates; or your own as FILE.py:name.",
    )
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Share of num_updates over which the rate rises from 0.")

    advantage: Advantage | UsersCode = Field(
        "grpo", description="grpo | dr_grpo (no std) | rloo, loop (leave one out) | your own as FILE.py:name."
    )
    loss: Loss | UsersCode = Field(
        "clipped",
        description="clipped per token (PPO) | cispo | gspo (one ratio per rollout) | your own as FILE.py:name.",
    )
    clip_low: float = Field(
        0.2, ge=0, lt=1, description="A falling probability counts down to ratio 1 - clip_low. Unset with gspo: 3e-4."
    )
    clip_high: float = Field(
        0.28,
        ge=0,
        description="A rising probability counts up to ratio 1 + clip_high; cispo's cap is there. Unset with gspo: 4e-4.",
    )
    loss_normalisation: Literal["tokens", "rollouts", "constant"] = Field(
        "tokens",
        description="Mean over the batch's policy tokens, over rollouts of each one's mean (unset with gspo), or the sum "
        "over rollouts x max_new_tokens (Dr. GRPO).",
    )
    importance_cap: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        _CAP,
        description='Largest weight of learner over engine probability, or "off": not truncated. Unset with cispo: at '
        "least cispo's own cap.",
    )
    kl_weight: float = Field(0.0, ge=0, description="Weight of KL(policy, reference).")
    kl_estimator: KlEstimator = Field(
        "weighted_k3",
        description="k3 x ratio, whose gradient is that of KL(policy, reference); or k3 in the loss, as GRPO was printed: "
        "the gradient is that of KL(reference, policy).",
    )
    kl_reference: Literal["base", "moving_average"] = Field(
        "base", description="The untrained model, or a moving average of the adapter."
    )
    moving_average_decay: float = Field(
        0.99, ge=0, le=1, description="kl_reference = moving_average: share of the old average kept per update."
    )
    entropy_weight: float = Field(0.0, ge=0, description="Weight of the policy's entropy, added to the objective.")
    overlong: Literal["train", "mask", "penalty"] = Field(
        "train", description="Rollouts cut at the length limit: train as they are, leave out of the loss, or penalise."
    )
    overlong_penalty: float = Field(0.5, ge=0, description="overlong = penalty: taken off the reward.")

    mismatch_stop: float = Field(
        1.0, gt=0, description="The same mean at which the learner refuses the batch: the two run different models."
    )
    scripted: ScriptedLearnerSettings = Field(
        default=ScriptedLearnerSettings(), description="Times and faults of the learner on a policy without a model."
    )

    @model_validator(mode="before")
    @classmethod
    def _what_goes_with_the_loss(cls, values: Any) -> Any:
        """Fills in what is unset where its default depends on the loss, and what a stored run did before there was a
        setting for it."""
        if not isinstance(values, dict):
            return values
        given = dict(values)
        if _stored_before_kl_estimator(given):
            given["kl_estimator"] = "k3"
        match given.get("loss"):
            case "gspo":
                return _OF_GSPO | given
            case "cispo":
                clip_high = given.get("clip_high", _CISPO_CLIP_HIGH)
                return {"importance_cap": max(_CAP, 1.0 + clip_high)} | given if _is_number(clip_high) else given
        return given

    @field_validator("lora_targets", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("lora_targets")
    @classmethod
    def _not_the_head(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = () if isinstance(value, str) else value
        if not names and value != "all_linear":
            raise ValueError('lora_targets is empty; name modules such as "q_proj", or write "all_linear"')
        if any(name.split(".")[-1] == "lm_head" for name in names):
            raise ValueError(
                "lora_targets names lm_head; the head stays frozen (log-probs are taken in chunks from it)"
            )
        return value

    @field_validator("mismatch_stop")
    @classmethod
    def _stop_after_warning(cls, value: float) -> float:
        if value < cls.mismatch_warn:
            raise ValueError(
                f"mismatch_stop is {value}; the run warns from {cls.mismatch_warn} on: stop there or above"
            )
        return value

    @property
    def importance_limit(self) -> float | None:
        return None if self.importance_cap == "off" else self.importance_cap

    def refuse_cut_cap(self) -> None:
        """Raises ConfigError where another cap would act below cispo's own. Asked where a run starts or goes on, not where
        its settings are read: runs up to be586f9 that have both can still be looked at."""
        cap = self.importance_limit
        if self.loss == "cispo" and cap is not None and cap < 1 + self.clip_high:
            raise ConfigError(
                f"learner.loss = 'cispo' caps the ratio at 1 + clip_high = {1 + self.clip_high:g}, and "
                f"learner.importance_cap = {cap:g} would cut it before that. Leave importance_cap out, or lower clip_high. (Up "
                "to commit be586f9 the lower of the two acted and nothing said so: a run begun there with these settings "
                "goes on with that commit)"
            )


def _stored_before_kl_estimator(values: dict[str, Any]) -> bool:
    weight = values.get("kl_weight", 0.0)
    acts = _is_number(weight) and weight > 0
    return acts and "kl_estimator" not in values and values.keys() >= _ONLY_STORED_RUNS_SAY_ALL


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
