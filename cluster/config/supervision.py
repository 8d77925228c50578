"""`[supervision]`: how long a run may be silent, and how often it is resumed by itself."""

from typing import ClassVar

from pydantic import Field

from contracts.settings import Settings


class SupervisionSettings(Settings):
    """Limits of the process that watches a run from outside (cluster/recovery/supervisor.py)."""

    fixed: ClassVar[tuple[str, ...]] = ("run_restart_window_s",)

    run_restart_window_s: ClassVar[float] = 3600.0
    """Window of run_restarts, in seconds."""

    start_s: float = Field(1800.0, gt=0, description="seconds from the start to the first sign of life: models load")
    heartbeat_s: float = Field(120.0, gt=0, description="seconds between two signs of life of the controller")
    progress_s: float = Field(
        5400.0, gt=0, description="seconds without an update, a rollout, a memory write or an evaluation"
    )
    stop_s: float = Field(300.0, gt=0, description="seconds a run may take to write a checkpoint and end when asked to")
    run_restarts: int = Field(5, ge=0, description="times a run is resumed within an hour")
