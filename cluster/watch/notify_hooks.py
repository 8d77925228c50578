"""What a notice is handed to: a service of Apprise, or a command. Neither's error holds the address, which may be secret."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote

KILLED_WITHIN_S = 10.0
_SECRET_CHARACTERS = 4
"""A part of an address that is at least so long is taken out of messages."""


class HookError(Exception):
    """A hook did not do its part."""


class Hook(Protocol):
    """Hands one event to one destination."""

    def deliver(self, notice: str, payload: bytes) -> None:
        """notice: name of the event. payload: the event as JSON. Raises anything where it was not taken."""

    def stop(self) -> None:
        """Ends a delivery under way where that can be done, and lets no other begin."""


class ServiceHook:
    """A service that Apprise knows. address: its address, or $NAME for one in the environment."""

    def __init__(self, address: str, environment: Mapping[str, str], timeout_s: float) -> None:
        self._address, self._environment, self._timeout_s = address, environment, timeout_s

    def deliver(self, notice: str, payload: bytes) -> None:
        from cluster.watch.notify_services import send_to_service

        del notice  # it is in the payload
        address = self._address
        if address.startswith("$"):
            if address[1:] not in self._environment:
                raise HookError(f"the environment has no {address[1:]}, which notify.urls names")
            address = self._environment[address[1:]]
        try:
            send_to_service(address, json.loads(payload), self._timeout_s)
        except Exception as error:  # noqa: BLE001  libraries put addresses into their messages
            raise HookError(_without(address, reason(error))) from None

    def stop(self) -> None:
        """A connection ends by its own timeout; the thread is a daemon."""


class CommandHook:
    """A program with its arguments, run without a shell: the event on its standard input, its name in MEMR_EVENT."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], timeout_s: float) -> None:
        self._command, self._environment, self._timeout_s = command, environment, timeout_s
        self._changing = threading.Lock()  # guards everything below
        self._child: subprocess.Popen[bytes] | None = None
        self._over = False

    def deliver(self, notice: str, payload: bytes) -> None:
        with self._changing:
            if self._over:
                raise HookError("not begun: the run is over")
            self._child = child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**self._environment, "MEMR_EVENT": notice},
                start_new_session=True,  # so that it can be ended with all it started
            )
        try:
            child.communicate(payload, self._timeout_s)
        except subprocess.TimeoutExpired:
            raise HookError(f"no end within {self._timeout_s:g} s: it was killed") from None
        finally:
            _end(child)
            with self._changing:
                self._child = None
        if child.returncode:
            raise HookError(f"exit code {child.returncode}")

    def stop(self) -> None:
        with self._changing:
            self._over = True
            if self._child is not None:
                _kill(self._child)


def reason(error: Exception) -> str:
    """In words; the name of the class where its text may hold anything."""
    match error:
        case HookError() | OSError() | ValueError() | TypeError():
            return str(error) or type(error).__name__
    return type(error).__name__


def _without(address: str, text: str) -> str:
    """Host, user, password, path and query taken out."""
    parts = {part for part in re.split(r"[/:@?&=,]+", address)[1:] if len(part) >= _SECRET_CHARACTERS}
    for part in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        text = text.replace(part, "..")
    return text


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
