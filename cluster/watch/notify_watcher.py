"""Incidents of a run, on their way to people: what the recorder reports with a headline goes to the hooks as an alarm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.watch.notify import Notifier
from contracts.rollout import ScoredGroup

CLOSE_WITHIN_S = 5.0


class NotifyWatcher:
    """cluster.record.recorder.Watcher."""

    def __init__(self, notifier: Notifier, run_path: Path) -> None:
        self._notifier, self._run_path = notifier, run_path

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind == "event" and "headline" in line:
            self._notifier.send(line | {"event": "alarm", "incident": line["event"], "run": str(self._run_path)})

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        pass

    def close(self) -> None:
        self._notifier.close(CLOSE_WITHIN_S)
