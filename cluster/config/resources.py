"""`[resources]`: when a run does something about a disk that fills and about memory that creeps.

Loads without torch and Ray.
"""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from contracts.settings import Settings, constant, derived


class ResourceSettings(Settings):
    """A low-water mark is the larger of a number of bytes and a number of checkpoints of the size of the next one.

    Free disk that falls below the first mark ends rollouts/ (the log goes on), below the second all but the fewest safe
    checkpoints and adapters, below the third the run.
    """

    transcripts_free_checkpoints: ClassVar = constant(4.0, last="09489b9")
    """Free disk below which rollouts/ is no longer written, in checkpoints."""
    prune_free_checkpoints: ClassVar = constant(2.5, last="09489b9")
    """Free disk below which only the fewest safe checkpoints and adapters stay, in checkpoints."""
    stop_free_checkpoints: ClassVar = constant(1.5, last="09489b9")
    """Free disk below which the run stops, in checkpoints; the last one must still fit, so 1 or more."""
    leak_window_s: ClassVar = constant(1800.0, last="09489b9")
    """Seconds of steady growth that count as a leak."""
    leak_growth_bytes: ClassVar = constant(256 * 2**20, last="09489b9")
    """Growth of a process within the window, in bytes, that alarms."""
    leak_growth_handles: ClassVar = constant(200, last="09489b9")
    """Growth of a process's open file handles within the window that alarms."""
    leak_growth_share: ClassVar = constant(0.1, last="09489b9")
    """Least growth within the window as a share of what was there; both limits must be passed."""

    enabled: bool = Field(True, description="watch disk, memory and file handles while the run goes on")
    sample_interval_s: float = Field(15.0, gt=0, description="seconds between two looks")

    stop_free_bytes: int = Field(
        2**28,
        ge=0,
        description="free disk, in bytes, below which the run writes a last checkpoint and stops; at twice as much old "
        "checkpoints go, at four times rollouts/ is no longer written",
    )

    @derived(last="9962a33", instead="Set stop_free_bytes to a quarter of it")
    def transcripts_free_bytes(self) -> int:
        """Below this rollouts/ is no longer written."""
        return 4 * self.stop_free_bytes

    @derived(last="9962a33", instead="Set stop_free_bytes to half of it")
    def prune_free_bytes(self) -> int:
        """Below this only the fewest safe checkpoints and adapters stay."""
        return 2 * self.stop_free_bytes

    @model_validator(mode="after")
    def _enough_looks_in_a_window(self) -> Self:
        if self.leak_window_s < 12 * self.sample_interval_s:
            raise ValueError(
                f"sample_interval_s is {self.sample_interval_s}: fewer than 12 looks in {self.leak_window_s:.0f} s cannot tell "
                "growth from noise"
            )
        return self
