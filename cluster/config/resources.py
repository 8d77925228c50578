"""`[resources]`: when a run does something about a disk that fills and about memory that creeps.

Loads without torch and Ray.
"""

from typing import Self

from pydantic import Field, model_validator

from contracts.settings import Settings


class ResourceSettings(Settings):
    """A low-water mark is the larger of a number of bytes and a number of checkpoints of the size of the next one."""

    enabled: bool = Field(True, description="watch disk, memory and file handles while the run goes on")
    sample_interval_s: float = Field(15.0, gt=0, description="seconds between two looks")

    transcripts_free_bytes: int = Field(
        2**30, ge=0, description="free disk, in bytes, below which rollouts/ is no longer written; the log goes on"
    )
    transcripts_free_checkpoints: float = Field(4.0, ge=0, description="the same mark, in checkpoints")
    prune_free_bytes: int = Field(
        2**29, ge=0, description="free disk, in bytes, below which only the fewest safe checkpoints and adapters stay"
    )
    prune_free_checkpoints: float = Field(2.5, ge=0, description="the same mark, in checkpoints")
    stop_free_bytes: int = Field(
        2**28, ge=0, description="free disk, in bytes, below which the run writes a last checkpoint and stops"
    )
    stop_free_checkpoints: float = Field(
        1.5, ge=1, description="the same mark, in checkpoints; the last one must still fit, so 1 or more"
    )

    leak_window_s: float = Field(1800.0, gt=0, description="seconds of steady growth that count as a leak")
    leak_growth_bytes: int = Field(
        256 * 2**20, gt=0, description="growth of a process within the window, in bytes, that alarms"
    )
    leak_growth_handles: int = Field(
        200, gt=0, description="growth of a process's open file handles within the window that alarms"
    )
    leak_growth_share: float = Field(
        0.1, gt=0, description="least growth within the window as a share of what was there; both limits must be passed"
    )

    @model_validator(mode="after")
    def _marks_in_order(self) -> Self:
        for unit in ("bytes", "checkpoints"):
            names = [f"{step}_free_{unit}" for step in ("stop", "prune", "transcripts")]
            marks = [getattr(self, name) for name in names]
            if marks != sorted(marks):
                given = ", ".join(f"{name} {mark}" for name, mark in zip(names, marks, strict=True))
                raise ValueError(f"{given}: keep them in this order, the run stops last")
        return self

    @model_validator(mode="after")
    def _enough_looks_in_a_window(self) -> Self:
        if self.leak_window_s < 12 * self.sample_interval_s:
            raise ValueError(
                f"leak_window_s is {self.leak_window_s}: less than 12 looks of sample_interval_s "
                f"({self.sample_interval_s}) cannot tell growth from noise"
            )
        return self
