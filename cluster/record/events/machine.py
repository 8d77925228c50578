"""Events of the machine: disk and memory, measured and projected."""

from dataclasses import dataclass
from typing import ClassVar

from cluster.record.events.event import Event, Incident

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Projected(Event):
    """What the run will take, from its first checkpoint. disk_bytes, memory_bytes: it may still take. free_bytes,
    free_memory_bytes: free now on the run's disk and of the machine's memory."""

    written_as: ClassVar[str] = "projected"

    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    free_memory_bytes: int

    @property
    def headline(self) -> str:
        return (
            f"the run may take {self.disk_bytes / GIB:.2g} GiB of disk ({self.free_bytes / GIB:.2g} are free) and "
            f"{self.memory_bytes / GIB:.2g} GiB of memory ({self.free_memory_bytes / GIB:.2g} are free)"
        )


@dataclass(frozen=True, slots=True)
class DiskLow(Incident):
    """The disk fills up: transcripts are no longer written, or older checkpoints were deleted."""

    written_as: ClassVar[str] = "disk_low"


@dataclass(frozen=True, slots=True)
class DiskFull(Incident):
    """The disk is nearly full: the run writes a last checkpoint and stops."""

    written_as: ClassVar[str] = "disk_full"


@dataclass(frozen=True, slots=True)
class ProcessGrows(Incident):
    """Memory or file handles of a process rose through a whole window, beyond what new episodes explain."""

    written_as: ClassVar[str] = "process_grows"
