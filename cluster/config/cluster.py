"""`[cluster]`: how much work is under way, what the run keeps, how its processes start. Loads without torch and Ray."""

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.settings import Settings, constant


class AutoscaleSettings(Settings):
    """`[cluster.autoscale]`: the number of workers follows who waits for whom. Off unless asked for."""

    window_updates: ClassVar = constant(5, last="9962a33")
    """Updates over which waits are averaged."""
    cooldown_updates: ClassVar = constant(10, last="9962a33")
    """Updates between two changes."""
    raise_above: ClassVar = constant(0.3, last="09489b9")
    """Learner's share of time without rollouts that adds a worker."""
    lower_below: ClassVar = constant(0.05, last="09489b9")
    """The same share below which a worker may go."""

    enabled: bool = Field(False, description="raise and lower the number of workers while the run goes on")
    min_workers: int = Field(1, ge=1, description="never fewer")
    max_workers: int = Field(8, ge=1, description="never more")

    @model_validator(mode="after")
    def _limits_in_order(self) -> "AutoscaleSettings":
        if self.max_workers < self.min_workers:
            raise ValueError(f"max_workers is {self.max_workers}, below min_workers {self.min_workers}")
        return self


_NOT_OURS = {
    "CUDA_VISIBLE_DEVICES": "Ray gives each process its GPUs by it; choose GPUs by learner.gpus, actors.gpus_per_worker, device",
    "RAY_AUTH_MODE": "it belongs to the Ray that is joined: set it in the shell",
    "RAY_AUTH_TOKEN": "a secret does not belong in a configuration: set it in the shell",
}


class ClusterSettings(Settings):
    """`[cluster]`: how much work is under way, and what the run keeps."""

    buffer_bytes: ClassVar = constant(512 * 2**20, last="9962a33")
    """The rollout buffer's bound; admission pauses above it."""
    grace_s: ClassVar = constant(30.0, last="9962a33")
    """What ActorSettings.grace_s is for leases of 30 s or more."""
    drain_s: ClassVar = constant(120.0, last="9962a33")
    """Seconds that a worker that leaves may take to finish its leases."""
    worker_restart_window_s: ClassVar = constant(600.0, last="09489b9")
    """Window of worker_restarts, in seconds."""
    part_restart_window_s: ClassVar = constant(3600.0, last="09489b9")
    """Window of part_restarts, in seconds."""

    groups_per_batch: int = Field(8, ge=1, description="problems per update")
    lease_attempts: int = Field(3, ge=1, description="tries per problem before it counts as failed")
    stop_after_failures: int = Field(20, ge=1, description="failed problems in a row that stop the run")
    checkpoint_every_updates: int = Field(
        20, ge=0, description="updates between checkpoints; 0: before the first and after the last"
    )
    checkpoints_kept: int = Field(3, ge=2, description="newest checkpoints kept")
    adapters_on_disk: int = Field(
        4, ge=1, description="newest adapters kept, beside those of evaluations and checkpoints"
    )
    tensorboard: bool = Field(True, description="also write metrics for TensorBoard")
    object_store_bytes: int = Field(256 * 2**20, ge=80 * 2**20, description="size of a local Ray's object store")

    min_workers: int = Field(1, ge=1, description="with fewer workers left the run writes a checkpoint and stops")
    worker_restarts: int = Field(6, ge=0, description="lost workers replaced within ten minutes")
    worker_start_s: float = Field(600.0, gt=0, description="seconds a worker may take to load its model")
    part_restarts: int = Field(5, ge=0, description="memory or learner restarted within an hour")
    learner_call_s: float = Field(3600.0, gt=0, description="seconds an update or a save of the learner may take")
    memory_call_s: float = Field(900.0, gt=0, description="seconds a call to memory may take")
    shared_run_directory: bool = Field(
        False, description="every node sees run.directory; else learner and memory stay on the node of `memr train`"
    )
    env: dict[str, str] = Field(
        default_factory=dict,
        description="environment variables of every process of the run; config.toml shows them: no secrets",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of Python's and vLLM's logging that goes to RUN/logs"
    )
    autoscale: AutoscaleSettings = Field(default_factory=AutoscaleSettings, description="number of workers by need")

    @field_validator("env", mode="before")
    @classmethod
    def _values_are_text(cls, value: Any) -> Any:
        """`--set cluster.env.NCCL_IB_DISABLE=1` is read as a number."""
        if not isinstance(value, dict):
            return value
        return {
            name: str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for name, v in value.items()
        }

    @field_validator("env")
    @classmethod
    def _names_that_may_be_set(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\0" in text:
                raise ValueError(f"env names {name!r}: letters, digits and _ make the name of an environment variable")
            if why := _NOT_OURS.get(name):
                raise ValueError(f"env sets {name}: {why}")
        return value
