"""Watches a run's own numbers and acts on what the monitors say: warns, pauses, rolls back.

Recorder --metrics, evaluations--> AlarmWatcher --alarms (pure)--> incident, once until it clears --> act
"""

from collections.abc import Callable, Sequence
from typing import Any

from cluster.config.alarms import AlarmSettings
from cluster.record.events.event import Event
from cluster.watch.alarms.alarm import Alarm
from cluster.watch.alarms.alarms import alarms, newly_raised
from contracts.rollout import ScoredGroup

FIRST_LINES, LAST_LINES = 100, 400
"""Of the history that monitors are given: the early level and the windows; a run of months stays cheap."""


class AlarmWatcher:
    """cluster.record.recorder.Watcher. act: told of each alarm when it is raised. What holds when a run is resumed is known:
    it was reported before, and does not pause the run again."""

    def __init__(
        self,
        settings: AlarmSettings,
        act: Callable[[Alarm], None],
        metrics: Sequence[dict[str, Any]] = (),
        evals: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._settings, self._act = settings, act
        self._first, self._last = list(metrics[:FIRST_LINES]), list(metrics[FIRST_LINES:][-LAST_LINES:])
        self._evals = list(evals)
        self._raised = {alarm.name for alarm in self._now()}

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind == "eval":  # the last one has no update after it at which anybody would look
            self._evals.append(line)
        elif kind == "metrics":
            (self._first if len(self._first) < FIRST_LINES else self._last).append(line)
            del self._last[:-LAST_LINES]
        else:
            return
        now = self._now()
        new = newly_raised(self._raised, now)
        self._raised = {alarm.name for alarm in now}
        for alarm in new:
            self._act(alarm)

    def show_event(self, event: Event) -> None:
        pass

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        pass

    def close(self) -> None:
        pass

    def _now(self) -> list[Alarm]:
        return alarms([*self._first, *self._last], self._evals, self._settings)
