"""Does a run move? A state machine over what its status file says; no I/O.

    start_s      from the start of the process to its first sign of life
    heartbeat_s  between two signs of life
    progress_s   between two of: an update, a group sampled, a group in memory, an evaluation, a version proven

Times are those of the watcher's own monotonic clock, at which a change was seen: a clock that jumps raises no alarm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.config.supervision import SupervisionSettings


@dataclass(frozen=True, slots=True)
class Hang:
    """alive: the controller still gives signs of life, so it can be asked for a checkpoint."""

    headline: str
    alive: bool


class ProgressWatch:
    """Of one process of the controller, from its start on."""

    def __init__(self, settings: SupervisionSettings, now_s: float) -> None:
        self._settings = settings
        self._beat: Any = None
        self._beat_s = now_s
        self._progress: Any = None
        self._progress_s = now_s

    def look(self, status: Mapping[str, Any] | None, now_s: float) -> Hang | None:
        """status: as last read, None while there is none of this process."""
        if status is None:
            limit_s = self._settings.start_s
            late = now_s - self._beat_s > limit_s
            return (
                Hang(f"the run gave no sign of life within supervision.start_s = {limit_s:g} s", False)
                if late
                else None
            )
        if status.get("time_s") != self._beat:
            self._beat, self._beat_s = status.get("time_s"), now_s
        if status.get("progress") != self._progress:
            self._progress, self._progress_s = status.get("progress"), now_s
        if now_s - self._beat_s > self._settings.heartbeat_s:
            return Hang(
                f"the controller gave no sign of life for {now_s - self._beat_s:.0f} s "
                f"(supervision.heartbeat_s = {self._settings.heartbeat_s:g})",
                alive=False,
            )
        if now_s - self._progress_s > self._settings.progress_s:
            return Hang(
                f"no progress for {now_s - self._progress_s:.0f} s while {status.get('phase', 'in an unknown phase')} "
                f"(supervision.progress_s = {self._settings.progress_s:g})",
                alive=True,
            )
        return None
