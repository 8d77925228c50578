"""Incidents of a run, on their way to people: every event that is a problem goes to the hooks as an alarm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config.notify import Notice
from cluster.record.events.event import Event, Severity
from cluster.watch.notify import Notifier
from contracts.rollout import ScoredGroup

CLOSE_WITHIN_S = 5.0


class NotifyWatcher:
    """cluster.record.recorder.Watcher."""

    def __init__(self, notifier: Notifier, run_path: Path) -> None:
        self._notifier, self._run_path = notifier, run_path

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        pass

    def show_event(self, event: Event) -> None:
        if event.severity is Severity.PROBLEM:
            notice = {"event": Notice.ALARM, "incident": event.name, "run": str(self._run_path)}
            self._notifier.send(event.to_line() | notice)

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        pass

    def close(self) -> None:
        self._notifier.close(CLOSE_WITHIN_S)
