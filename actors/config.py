"""Settings of the rollout workers ([actors]), their pools ([[actors.pools]]) and their engines.

Read by the command line, the plan and every worker process; loads without torch.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from actors.engine_kinds import EngineKind, EngineName, engine_kind
from contracts.errors import ConfigError
from contracts.settings import Settings, UsersCode, constant

Device = Literal["cpu", "cuda", "auto"]
Dtype = Literal["bfloat16", "float32"]
Fault = Literal["raise", "hang", "abort", "timeout", "nan"]
Probability = Annotated[float, Field(ge=0, le=1)]

LEAST_ADAPTERS_KEPT = 4
"""Newest policy versions that a worker keeps loaded, where max_policy_lag does not need more."""


class ScriptedSettings(Settings):
    """[actors.scripted]: what the engine without a model writes, how fast, and how it fails."""

    alphabet: ClassVar = constant("".join(chr(code) for code in range(32, 127)) + "\n", last="9962a33")
    """Characters of the character tokenizer; each is one token."""
    answer_form: ClassVar = constant("{filler}{answer}", last="9962a33")
    """Text of a response: the scripted answer, padded to its drawn length."""
    min_response_tokens: ClassVar = constant(4, last="9962a33")
    """Shortest response, end token not counted."""
    max_response_tokens: ClassVar = constant(16, last="9962a33")
    """Longest response, end token not counted."""
    latency_sigma: ClassVar = constant(0.0, last="9962a33")
    """Latency does not vary."""
    hang_s: ClassVar = constant(3600.0, last="9962a33")
    """How long a hanging call sleeps, in seconds."""
    seed: ClassVar = constant(0, last="9962a33")
    """Mixed into every scripted draw beside the rollout's own seed."""
    raise_probability: ClassVar = constant(0.0, last="9962a33", instead="Write faults = {raise = ..}")
    hang_probability: ClassVar = constant(0.0, last="9962a33", instead="Write faults = {hang = ..}")
    abort_probability: ClassVar = constant(0.0, last="9962a33", instead="Write faults = {abort = ..}")
    timeout_probability: ClassVar = constant(0.0, last="9962a33", instead="Write faults = {timeout = ..}")
    nan_probability: ClassVar = constant(0.0, last="9962a33", instead="Write faults = {nan = ..}")

    accuracy: float = Field(default=0.5, ge=0, le=1, description="Probability of a right answer at policy version 0.")
    accuracy_per_version: float = Field(default=0.0, ge=0, le=1, description="Added to accuracy per policy version.")
    latency_per_request_s: float = Field(default=0.0, ge=0, description="Fixed time of one generate call, in seconds.")
    latency_per_token_s: float = Field(
        default=0.0, ge=0, description="Time per decoding step (one token of every sample), in seconds."
    )
    faults: dict[Fault, Probability] = Field(
        default_factory=dict,
        description="Probabilities: of a generate call to raise an error or hang for an hour, of a sample to be aborted or "
        "timed out half-way or to have a log-prob that is no number.",
    )

    def fault(self, name: Fault) -> float:
        """The probability of one fault, 0 to 1."""
        return self.faults.get(name, 0.0)


class VllmSettings(Settings):
    """[actors.vllm]: the vLLM engine. Sampling has no settings here: the learner could not account for them."""

    start_s: ClassVar = constant(600.0, last="9962a33", instead="Set cluster.worker_start_s")
    """Seconds that the engine may take to start, where cluster.worker_start_s does not say."""

    max_num_seqs: int = Field(default=64, ge=1, description="Samples decoded together.")
    kv_cache_bytes: int | None = Field(
        default=None,
        ge=2**20,
        description="KV cache of one worker; unset: 1 GiB on a CPU, what gpu_memory_utilization leaves on a GPU.",
    )
    gpu_memory_utilization: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="Share of a GPU's memory that must be free at the start and is one worker's, weights included.",
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that hold one copy of the model.")
    enforce_eager: bool = Field(default=False, description="No CUDA graphs: starts faster, decodes slower.")


class PoolSettings(Settings):
    """[[actors.pools]]: workers of one kind, where a run has several. What is unset is as in [actors]."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="Part of the workers' names.")
    num_workers: int = Field(ge=0, description="Workers of this kind at the start of the run.")
    engine: EngineName | UsersCode | None = Field(default=None, description="As actors.engine.")
    device: Device | None = Field(default=None, description="As actors.device.")
    dtype: Dtype | None = Field(default=None, description="As actors.dtype.")
    gpus_per_worker: float | None = Field(default=None, ge=0, description="As actors.gpus_per_worker.")
    max_batch_rows: int | None = Field(default=None, ge=1, description="As actors.max_batch_rows.")
    torch_threads: int | None = Field(default=None, ge=1, description="As actors.torch_threads.")
    node_resource: str | None = Field(
        default=None, description="Only on nodes that offer this Ray resource, for example a GPU type."
    )
    vllm: VllmSettings | None = Field(default=None, description="As actors.vllm.")


class ActorSettings(Settings):
    """[actors]: how many workers there are, how they sample, and on what."""

    health_deadline_s: ClassVar = constant(60.0, last="9962a33")
    """What `check_deadline_s` is for leases of a minute or more."""

    engine: EngineName | UsersCode = Field(
        default="transformers",
        description="Generation engine: a real model, or a script without a model; or your own as FILE.py:name.",
    )
    num_workers: int = Field(default=1, ge=1, description="Rollout workers at the start of the run.")
    rollouts_per_group: int = Field(
        default=8, ge=1, description="Rollouts sampled per problem (G), two or more to train."
    )
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of training rollouts.")
    max_new_tokens: int = Field(default=256, ge=1, description="Tokens the policy may write per rollout, all turns.")
    dtype: Dtype = Field(default="bfloat16", description="Data type of the base weights.")
    device: Device = Field(default="auto", description="Where the model runs.")
    gpus_per_worker: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of one worker, a share below 1; unset: one (vLLM: its parallel size), or less as learner.gpus.",
    )
    lora_path: Literal["auto", "unmerged", "merged"] = Field(
        default="auto",
        description="LoRA added beside the weights on every step, or merged into a copy; auto: merged in float32 alone.",
    )
    max_batch_rows: int = Field(default=64, ge=1, description="Samples decoded together (rows of one decoding batch).")
    torch_threads: int = Field(default=2, ge=1, description="CPU threads of one worker's matrix products.")
    lease_deadline_s: float = Field(default=600.0, gt=0, description="Seconds a worker may take for one lease.")
    probe_tolerance: float | None = Field(
        default=None,
        gt=0,
        description="Mean |log-prob difference| to the learner's probes that is always served, in nats; unset: by rounding.",
    )
    scripted: ScriptedSettings = Field(default=ScriptedSettings(), description="The scripted engine's script.")
    vllm: VllmSettings = Field(default=VllmSettings(), description="The vLLM engine.")
    pools: tuple[PoolSettings, ...] = Field(
        default=(), description="Workers of several kinds in one run; unset: num_workers alike."
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"gpus_per_worker is {value}: a share below 1, or a whole number")
        return value

    @field_validator("lora_path", mode="before")
    @classmethod
    def _read_side(cls, value: Any) -> Any:
        """What configurations up to commit f89091d call "side"."""
        return "unmerged" if value == "side" else value

    @field_validator("pools", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("pools")
    @classmethod
    def _names_differ(cls, value: tuple[PoolSettings, ...]) -> tuple[PoolSettings, ...]:
        names = [pool.name for pool in value]
        if len(set(names)) != len(names):
            raise ValueError(f"actors.pools has names twice: {names}; give each pool a name of its own")
        if value and not any(pool.num_workers for pool in value):
            raise ValueError("actors.pools starts no worker: give at least one pool num_workers above 0")
        return value

    @property
    def check_deadline_s(self) -> float:
        """Seconds that a suspected worker may take for its one-token check."""
        return min(self.health_deadline_s, self.lease_deadline_s)

    @property
    def grace_s(self) -> float:
        """Seconds beyond a deadline before the worker counts as hung."""
        return min(30.0, self.lease_deadline_s)

    @property
    def by_pool(self) -> dict[str, "ActorSettings"]:
        """Settings of the workers by pool; one pool, "worker", where none are set."""
        if not self.pools:
            return {"worker": self}
        return {pool.name: self._with(pool) for pool in self.pools}

    @property
    def engine_kind(self) -> EngineKind:
        """What is known of the engine before it is loaded."""
        return engine_kind(self.engine)

    @property
    def continuous(self) -> bool:
        """Whether the engine takes new requests while others decode."""
        return self.engine_kind.continuous

    @property
    def merges_lora(self) -> bool:
        """Whether sampling runs on weights with the adapter merged in. In bfloat16 that rounds small updates away."""
        if not self.engine_kind.lora_paths:
            return False
        return self.lora_path == "merged" or (self.lora_path == "auto" and self.dtype == "float32")

    @property
    def rounds_small_updates(self) -> bool:
        """Whether part of an update that is small against the weights is lost on the way to the engine's log-probs: in merged
        bfloat16 weights, and in vLLM, which adds LoRA to outputs that are rounded already. Of a user's engine it is taken for
        granted."""
        return self.dtype != "float32" and (self.merges_lora or self.engine_kind.rounds_lora)

    @property
    def merges_in_bfloat16(self) -> bool:
        """Whether any pool of workers does."""
        return any(pool.merges_lora and pool.dtype == "bfloat16" for pool in self.by_pool.values())

    @property
    def window_rows(self) -> int:
        """Samples a worker may have in hand; an engine that is always full has some waiting at its door."""
        return self.vllm.max_num_seqs + self.rollouts_per_group if self.continuous else self.max_batch_rows

    def refuse_group_of_one(self) -> None:
        """Raises ConfigError. Asked where a run starts or goes on, not where its settings are read: a run of an earlier
        commit that failed over it can still be looked at."""
        if self.rollouts_per_group < 2:
            raise ConfigError(
                f"actors.rollouts_per_group = {self.rollouts_per_group}: a rollout's advantage is its reward against those of "
                "the same problem's other rollouts, so a group of one has no baseline and nothing would be learned. Set it "
                "to 2 or more (8 is the default)"
            )

    def _with(self, pool: PoolSettings) -> "ActorSettings":
        given = pool.model_dump(exclude={"name", "node_resource", "vllm"}, exclude_none=True)
        given |= {"num_workers": max(1, pool.num_workers), "pools": ()}
        return self.model_copy(update=given | ({"vllm": pool.vllm} if pool.vllm else {}))
