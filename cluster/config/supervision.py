"""`[supervision]`: how long a run may be silent, and how often it is resumed by itself."""

from typing import ClassVar

from pydantic import Field

from contracts.settings import Settings, constant


class SupervisionSettings(Settings):
    """Limits of the process that watches a run from outside (cluster/recovery/supervisor.py)."""

    stop_s: ClassVar = constant(300.0, last="9962a33")
    """Seconds that a run may take to write a checkpoint and end when asked to."""
    run_restart_window_s: ClassVar = constant(3600.0, last="09489b9")
    """Window of run_restarts, in seconds."""

    start_s: float = Field(1800.0, gt=0, description="seconds from the start to the first sign of life: models load")
    heartbeat_s: float = Field(120.0, gt=0, description="seconds between two signs of life of the controller")
    progress_s: float = Field(
        5400.0, gt=0, description="seconds without an update, a rollout, a memory write or an evaluation"
    )
    run_restarts: int = Field(5, ge=0, description="times a run is resumed within an hour")
