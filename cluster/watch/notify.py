"""Sends a run's events to notification services, a command, or both. A hook that fails, hangs or is missing does not affect the run.

    send (any thread, returns at once) -> bounded queue -> daemon thread -> services, command

Full queue: the event is dropped and counted. Events are the truth in events.jsonl; what is sent here may get lost.
"""

import json
import math
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cluster.config.notify import NotifySettings

QUEUE_EVENTS = 100
_FAILURES_KEPT = 50
_IDLE_S = 60.0
KILLED_WITHIN_S = 10.0


class Notifier:
    """Sends what the settings name. `failures`: the last ones, in words; `num_failed`: all. `dropped`: events that found
    the queue full, came after `close`, or were left when its time was up."""

    def __init__(self, settings: NotifySettings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = environment
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[tuple[str, bytes]] = deque()
        self._failures: deque[str] = deque(maxlen=_FAILURES_KEPT)
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False  # no hook may begin any more
        self._thread: threading.Thread | None = None
        self.num_failed = 0
        self.dropped = 0
        if self.enabled:
            self._thread = threading.Thread(target=self._deliver_all, name="memr-notify", daemon=True)
            self._thread.start()

    @property
    def enabled(self) -> bool:
        return self._settings.urls is not None or self._settings.command is not None

    @property
    def failures(self) -> list[str]:
        with self._changed:
            return list(self._failures)

    def send(self, event: Mapping[str, Any]) -> None:
        """event["event"] is its name; names that the settings do not list are passed over. Returns at once."""
        name = event.get("event")
        if not self.enabled or name not in self._settings.events:
            return
        try:
            payload = json.dumps(_plain(event), default=str).encode()
        except Exception as error:  # noqa: BLE001  the edge: whatever an event holds, the caller goes on
            self._failed(f"event {name} cannot be written as JSON", error)
            return
        with self._changed:
            if self._closing or len(self._queue) >= QUEUE_EVENTS:
                self.dropped += 1
                return
            self._queue.append((str(name), payload))
            self._changed.notify()

    def close(self, within_s: float) -> None:
        """Deliver what is queued, for at most so many seconds; a command that still runs then is killed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is None:
            return
        self._thread.join(max(0.0, within_s))
        with self._changed:
            self._over = True
            self.dropped += len(self._queue)
            self._queue.clear()
            if self._child is not None:
                _kill(self._child)

    def _deliver_all(self) -> None:
        """Waits for events; ends once `close` was called and nothing is left."""
        while (event := self._next()) is not None:
            name, payload = event
            for number, address in enumerate(self._settings.urls or ()):
                self._attempt(f"notify.urls[{number}]", partial(self._notify, address), name, payload)
            if self._settings.command is not None:
                self._attempt("command", self._run, name, payload)

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait(_IDLE_S)
            return self._queue.popleft() if self._queue else None

    def _attempt(self, hook: str, deliver: Callable[[str, bytes], None], name: str, payload: bytes) -> None:
        try:
            deliver(name, payload)
        except Exception as error:  # noqa: BLE001  the edge: a hook's failure must not end the thread
            self._failed(f"{hook}, event {name}", error)

    def _notify(self, address: str, name: str, payload: bytes) -> None:
        from cluster.watch.notify_services import ServiceError, send_to_service

        del name  # it is in the payload
        if address.startswith("$"):
            if address[1:] not in self._environment:
                raise HookError(f"the environment has no {address[1:]}, which notify.urls names")
            address = self._environment[address[1:]]
        try:
            send_to_service(address, json.loads(payload), self._settings.timeout_s)
        except ServiceError as error:
            raise HookError(str(error)) from None

    def _run(self, name: str, payload: bytes) -> None:
        assert self._settings.command is not None
        with self._changed:
            if self._over:
                raise HookError("not begun: the run is over")
            self._child = child = subprocess.Popen(
                self._settings.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**self._environment, "MEMR_EVENT": name},
                start_new_session=True,  # so that it can be ended with all it started
            )
        try:
            child.communicate(payload, self._settings.timeout_s)
        except subprocess.TimeoutExpired:
            raise HookError(f"no end within {self._settings.timeout_s:g} s: it was killed") from None
        finally:
            _end(child)
            with self._changed:
                self._child = None
        if child.returncode:
            raise HookError(f"exit code {child.returncode}")

    def _failed(self, what: str, error: Exception) -> None:
        with self._changed:
            self.num_failed += 1
            self._failures.append(f"{what}: {_reason(error)}")


class HookError(Exception):
    """A hook did not do its part."""


def _end(child: subprocess.Popen[bytes]) -> None:
    """A child that has ended is left alone, with whatever it put into the background."""
    if child.poll() is None:
        _kill(child)
        child.wait(timeout=KILLED_WITHIN_S)


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is not None:
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()


def _reason(error: Exception) -> str:
    """Without the address, which may be secret."""
    match error:
        case HookError() | OSError() | ValueError() | TypeError():
            return str(error) or type(error).__name__
    return type(error).__name__


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity, and alarms are where they turn up."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
