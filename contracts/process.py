"""Identifies an operating-system process, so that it can be named, inspected and ended from outside."""

import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessId:
    """pid: valid on `host` only."""

    host: str
    pid: int

    @property
    def here(self) -> bool:
        return self.host == platform.node()


def own_process() -> ProcessId:
    """Returns the host and process number of this process."""
    return ProcessId(platform.node(), os.getpid())
