"""Settings of the rollout workers ([actors]) and of the scripted engine ([actors.scripted]).

Read by the command line, the plan and every worker process; loads without torch.
"""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from contracts.settings import Settings


class ScriptedSettings(Settings):
    """[actors.scripted]: what the engine without a model writes, how fast, and how it fails."""

    alphabet: str = Field(
        default="".join(chr(code) for code in range(32, 127)) + "\n",
        min_length=1,
        description="Characters of the character tokenizer; each is one token.",
    )
    answer_form: str = Field(
        default="{filler}{answer}",
        description="Text of a response; {answer} is the scripted answer, {filler} pads it to its drawn length.",
    )
    min_response_tokens: int = Field(default=4, ge=1, description="Shortest response, end token not counted.")
    max_response_tokens: int = Field(default=16, ge=1, description="Longest response, end token not counted.")
    accuracy: float = Field(default=0.5, ge=0, le=1, description="Probability of a right answer at policy version 0.")
    accuracy_per_version: float = Field(default=0.0, ge=0, le=1, description="Added to accuracy per policy version.")
    latency_per_request_s: float = Field(default=0.0, ge=0, description="Fixed time of one generate call, in seconds.")
    latency_per_token_s: float = Field(
        default=0.0, ge=0, description="Time per decoding step (one token of every sample), in seconds."
    )
    latency_sigma: float = Field(
        default=0.0, ge=0, description="Sigma of a log-normal factor of mean 1 on the latency; 0 is constant."
    )
    raise_probability: float = Field(default=0.0, ge=0, le=1, description="A generate call fails with EngineError.")
    hang_probability: float = Field(default=0.0, ge=0, le=1, description="A generate call sleeps for hang_s first.")
    hang_s: float = Field(default=3600.0, ge=0, description="How long a hanging call sleeps, in seconds.")
    abort_probability: float = Field(default=0.0, ge=0, le=1, description="A sample ends half-way as aborted.")
    timeout_probability: float = Field(default=0.0, ge=0, le=1, description="A sample ends half-way as timed out.")
    seed: int = Field(default=0, ge=0, description="Mixed into every scripted draw beside the rollout's own seed.")

    @field_validator("answer_form")
    @classmethod
    def _names_the_answer(cls, value: str) -> str:
        if "{answer}" not in value:
            raise ValueError(f"answer_form is {value!r} and must contain {{answer}}")
        return value

    @field_validator("max_response_tokens")
    @classmethod
    def _not_below_the_shortest(cls, value: int, info: ValidationInfo) -> int:
        shortest = info.data.get("min_response_tokens", 1)
        if value < shortest:
            raise ValueError(f"max_response_tokens is {value}, below min_response_tokens {shortest}")
        return value


class ActorSettings(Settings):
    """[actors]: how many workers there are, how they sample, and on what."""

    engine: Literal["scripted", "transformers"] = Field(
        default="transformers", description="Generation engine: a real model, or a script without a model."
    )
    num_workers: int = Field(default=1, ge=1, description="Rollout workers at the start of the run.")
    rollouts_per_group: int = Field(default=8, ge=1, description="Rollouts sampled per problem (G).")
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of training rollouts.")
    max_new_tokens: int = Field(default=256, ge=1, description="Tokens the policy may write per rollout, all turns.")
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="Data type of the base weights.")
    device: Literal["cpu", "cuda", "auto"] = Field(default="auto", description="Where the model runs.")
    lora_path: Literal["merged", "side"] = Field(
        default="merged", description="LoRA merged into a copy of the weights, or added beside them on every step."
    )
    max_batch_rows: int = Field(default=64, ge=1, description="Samples decoded together (rows of one wave).")
    torch_threads: int = Field(default=2, ge=1, description="CPU threads of one worker's matrix products.")
    lease_deadline_s: float = Field(default=600.0, gt=0, description="Seconds a worker may take for one lease.")
    adapters_kept: int = Field(default=4, ge=1, description="Newest policy versions a worker keeps loaded.")
    probe_tolerance: float = Field(
        default=0.1, gt=0, description="Largest mean |log-prob difference| to the learner's probes that is served."
    )
    scripted: ScriptedSettings = Field(default=ScriptedSettings(), description="The scripted engine's script.")

    def leases_per_call(self, num_rollouts: int) -> int:
        """How many leases of so many rollouts fill one wave; at least one."""
        return max(1, self.max_batch_rows // num_rollouts)
