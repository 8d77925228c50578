"""Sends a run's events to notification services, a command, or both. A hook that fails, hangs or is missing does not affect the run.

    send (any thread, returns at once) --+-> queue, thread -> a service        (notify_destination.py, notify_hooks.py)
                                         +-> queue, thread -> another service
                                         +-> queue, thread -> the command

Events are the truth in events.jsonl; what is sent here may get lost, and the first loss at each destination is an event.
"""

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from cluster.config.notify import NotifySettings
from cluster.record.events.failures import NoticeFailed
from cluster.watch.notify_destination import Destination
from cluster.watch.notify_hooks import CommandHook, ServiceHook

_FAILURES_KEPT = 50
RUN_CLOSES_WITHIN_S = 2.0
SUPERVISOR_CLOSES_WITHIN_S = 3.0
"""Seconds that the end of the run's own process, and then its supervisor, wait for notices."""


class Notifier:
    """Sends what the settings name. `failures`: the last ones, in words; `num_failed`: all, one per event and destination.
    `dropped`: those of them that found a queue full, came after `close`, or were left when its time was up."""

    def __init__(self, settings: NotifySettings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._lock = threading.Lock()  # guards everything up to the destinations
        self._failures: deque[str] = deque(maxlen=_FAILURES_KEPT)
        self._failed_once: set[str] = set()
        self._to_report: list[NoticeFailed] = []
        self.num_failed = 0
        timeout_s = settings.timeout_s
        self._destinations = [
            Destination(f"notify.urls[{number}]", ServiceHook(address, environment, timeout_s), self._failed)
            for number, address in enumerate(settings.urls or ())
        ]
        if settings.command is not None:
            hook = CommandHook(settings.command, environment, timeout_s)
            self._destinations.append(Destination("notify.command", hook, self._failed))

    @property
    def enabled(self) -> bool:
        return bool(self._destinations)

    @property
    def failures(self) -> list[str]:
        with self._lock:
            return list(self._failures)

    @property
    def dropped(self) -> int:
        return sum(destination.dropped for destination in self._destinations)

    def first_failures(self) -> list[NoticeFailed]:
        """The first of each destination, each returned once: those since the last call."""
        with self._lock:
            found, self._to_report = self._to_report, []
        return found

    def send(self, event: Mapping[str, Any]) -> None:
        """event["event"] is its name; names that the settings do not list are passed over. Returns at once."""
        name = event.get("event")
        if not self.enabled or name not in self._settings.events:
            return
        try:
            payload = json.dumps(_plain(event), default=str).encode()
        except Exception as error:  # noqa: BLE001  the edge: whatever an event holds, the caller goes on
            self._failed("notify", str(name), f"it cannot be written as JSON: {type(error).__name__}")
            return
        for destination in self._destinations:
            destination.put(str(name), payload)

    def close(self, within_s: float) -> None:
        """Deliver what is queued, for at most so many seconds in all; a command that still runs then is killed."""
        until_s = time.monotonic() + within_s
        for destination in self._destinations:
            destination.finish()
        for destination in self._destinations:
            destination.wait(max(0.0, until_s - time.monotonic()))
        for destination in self._destinations:
            destination.abandon()

    def _failed(self, destination: str, notice: str, error: str) -> None:
        event = NoticeFailed(destination, notice, " ".join(error.split()))
        with self._lock:
            self.num_failed += 1
            self._failures.append(event.headline)
            if destination not in self._failed_once:
                self._failed_once.add(destination)
                self._to_report.append(event)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity, and alarms are where they turn up."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
