"""Settings of the learner ([learner]): what an update is, and how it is computed. Loads without torch.

docs/algorithms.md has every formula with its source.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from contracts.settings import Settings

Advantage = Literal["grpo", "dr_grpo", "rloo", "loop"]
Loss = Literal["clipped", "cispo", "gspo"]


class ScriptedLearnerSettings(Settings):
    """[learner.scripted]: the learner that goes with the scripted engine; it has no model."""

    update_s: float = Field(default=0.0, ge=0, description="Simulated time of one update, in seconds.")
    adapter_bytes: int = Field(default=1024, ge=4, description="Size of the published weights.")
    bad_update_probability: float = Field(default=0.0, ge=0, le=1, description="An update is skipped: bad gradient.")


class LearnerSettings(Settings):
    """[learner]: how scored groups become the next policy version."""

    num_updates: int = Field(100, ge=1, description="Policy updates of the whole run; the schedule ends there.")
    max_policy_lag: int = Field(2, ge=0, description="Oldest policy that still trains, in versions; 0 is synchronous.")

    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="Data type of base weights and activations.")
    device: Literal["cpu", "cuda", "auto"] = Field("auto", description="Where the model runs.")
    gpus: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU; unset: a whole one, or less where device = auto finds too few."
    )
    torch_threads: int = Field(2, ge=1, description="CPU threads of the learner's matrix products.")
    shared_prefix: bool = Field(
        True, description="Run each prompt once per group; off for models whose attention is not plain and full."
    )
    micro_batch_tokens: int = Field(1280, ge=1, description="Tokens of one forward and backward; bounds memory.")
    logprob_chunk_tokens: int = Field(128, ge=1, description="Rows of the [tokens, vocabulary] matrix alive at once.")

    lora_r: int = Field(16, ge=1, description="Rank of the adapter.")
    lora_alpha: float = Field(32.0, gt=0, description="The adapter is scaled by lora_alpha / lora_r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter's first matrix.")
    lora_targets: Literal["all_linear"] | tuple[str, ...] = Field(
        "all_linear", description="Adapted modules: every linear layer but lm_head, or names such as q_proj."
    )

    learning_rate: float = Field(1e-4, ge=0, description="Peak learning rate of AdamW.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of AdamW's first moment.")
    adam_beta2: float = Field(0.99, ge=0, lt=1, description="Decay of AdamW's second moment.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay on the adapter.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients of larger L2 norm are scaled down to it.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning rate after the warm-up: constant, or down to 0 at num_updates."
    )
    warmup_share: float = Field(0.0, ge=0, lt=1, description="Share of num_updates over which the rate rises from 0.")

    advantage: Advantage = Field("grpo", description="grpo | dr_grpo (no std) | rloo, loop (leave one out).")
    loss: Loss = Field("clipped", description="clipped per token (PPO) | cispo | gspo (one ratio per rollout).")
    clip_low: float = Field(0.2, ge=0, lt=1, description="A falling probability counts down to ratio 1 - clip_low.")
    clip_high: float = Field(0.28, ge=0, description="A rising probability counts up to ratio 1 + clip_high.")
    loss_normalisation: Literal["tokens", "constant"] = Field(
        "tokens", description="Divide by the batch's policy tokens, or by rollouts x max_new_tokens (Dr. GRPO)."
    )
    importance_cap: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        2.0, description='Largest weight of learner over engine probability, or "off": not truncated.'
    )
    kl_weight: float = Field(0.0, ge=0, description="Weight of the KL divergence to the reference (k3 estimator).")
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

    mismatch_warn: float = Field(
        0.05, gt=0, description="Mean |log p learner - log p engine| at lag 0 that the run warns about."
    )
    mismatch_stop: float = Field(
        1.0, gt=0, description="The same mean at which the learner refuses the batch: the two run different models."
    )
    max_relative_change: float = Field(
        0.5, gt=0, description="Largest L2 norm of an update's change over the adapter's own that is let through."
    )
    scripted: ScriptedLearnerSettings = Field(
        default=ScriptedLearnerSettings(), description="The learner without a model."
    )

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
    def _stop_after_warning(cls, value: float, info: ValidationInfo) -> float:
        warn = info.data.get("mismatch_warn", 0.0)
        if value < warn:
            raise ValueError(f"mismatch_stop is {value}, below mismatch_warn {warn}; stop at or above the warning")
        return value

    @property
    def importance_limit(self) -> float | None:
        return None if self.importance_cap == "off" else self.importance_cap
