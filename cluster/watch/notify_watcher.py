"""Incidents of a run, on their way to people: every event that is a problem goes to the hooks as an alarm."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.config.notify import Notice
from cluster.record.events.event import Event, Severity
from cluster.watch.notify import RUN_CLOSES_WITHIN_S, Notifier
from contracts.rollout import ScoredGroup


class NotifyWatcher:
    """cluster.record.recorder.Watcher. report: records an event; it gets the first failure of each destination, with the
    next line of the run or at its end."""

    def __init__(
        self,
        notifier: Notifier,
        run_path: Path,
        report: Callable[[Event], None],
        close_within_s: float = RUN_CLOSES_WITHIN_S,
    ) -> None:
        self._notifier, self._run_path = notifier, run_path
        self._report, self._close_within_s = report, close_within_s

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        del kind, line  # status comes once a second
        self._report_failures()

    def show_event(self, event: Event) -> None:
        if event.severity is Severity.PROBLEM:
            notice = {"event": Notice.ALARM, "incident": event.name, "run": str(self._run_path)}
            self._notifier.send(event.to_line() | notice)

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        pass

    def close(self) -> None:
        self._notifier.close(self._close_within_s)
        self._report_failures()

    def _report_failures(self) -> None:
        for failed in self._notifier.first_failures():
            self._report(failed)
