"""`[resources]`: when a run does something about a disk that fills and about memory that creeps.

Loads without torch and Ray.
"""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from contracts.settings import Settings


class ResourceSettings(Settings):
    """A low-water mark is the larger of a number of bytes and a number of checkpoints of the size of the next one."""

    fixed: ClassVar[tuple[str, ...]] = (
        "transcripts_free_checkpoints",
        "prune_free_checkpoints",
        "stop_free_checkpoints",
        "leak_window_s",
        "leak_growth_bytes",
        "leak_growth_handles",
        "leak_growth_share",
    )

    transcripts_free_checkpoints: ClassVar[float] = 4.0
    """The same mark, in checkpoints."""
    prune_free_checkpoints: ClassVar[float] = 2.5
    """The same mark, in checkpoints."""
    stop_free_checkpoints: ClassVar[float] = 1.5
    """The same mark, in checkpoints; the last one must still fit, so 1 or more."""
    leak_window_s: ClassVar[float] = 1800.0
    """Seconds of steady growth that count as a leak."""
    leak_growth_bytes: ClassVar[int] = 256 * 2**20
    """Growth of a process within the window, in bytes, that alarms."""
    leak_growth_handles: ClassVar[int] = 200
    """Growth of a process's open file handles within the window that alarms."""
    leak_growth_share: ClassVar[float] = 0.1
    """Least growth within the window as a share of what was there; both limits must be passed."""

    enabled: bool = Field(True, description="watch disk, memory and file handles while the run goes on")
    sample_interval_s: float = Field(15.0, gt=0, description="seconds between two looks")

    transcripts_free_bytes: int = Field(
        2**30, ge=0, description="free disk, in bytes, below which rollouts/ is no longer written; the log goes on"
    )
    prune_free_bytes: int = Field(
        2**29, ge=0, description="free disk, in bytes, below which only the fewest safe checkpoints and adapters stay"
    )
    stop_free_bytes: int = Field(
        2**28, ge=0, description="free disk, in bytes, below which the run writes a last checkpoint and stops"
    )

    @model_validator(mode="after")
    def _marks_in_order(self) -> Self:
        names = [f"{step}_free_bytes" for step in ("stop", "prune", "transcripts")]
        marks = [getattr(self, name) for name in names]
        if marks != sorted(marks):
            given = ", ".join(f"{name} {mark}" for name, mark in zip(names, marks, strict=True))
            raise ValueError(f"{given}: keep them in this order, the run stops last")
        return self

    @model_validator(mode="after")
    def _enough_looks_in_a_window(self) -> Self:
        if self.leak_window_s < 12 * self.sample_interval_s:
            raise ValueError(
                f"sample_interval_s is {self.sample_interval_s}: fewer than 12 looks in {self.leak_window_s:.0f} s cannot tell "
                "growth from noise"
            )
        return self
