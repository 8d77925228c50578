"""Sends one event to one service that Apprise knows: Slack, Discord, Telegram, ntfy, e-mail, a web address that takes JSON, ...

Addresses are Apprise's (https://github.com/caronc/apprise/wiki); none of them, which may be secret, gets into a message.
"""

import json
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import apprise

from cluster.config.notify import Notice, apprise_service
from cluster.watch.notify_hooks import HookError

_TITLE = "event"
_SENTENCE = "headline"


def send_to_service(address: str, event: Mapping[str, Any], timeout_s: float) -> None:
    """timeout_s: of connecting, and of each wait for an answer. No redirect is followed: a POST would arrive as a GET.

    Raises ValueError for an address that Apprise does not know, HookError where the service did not take the event.
    """
    service = apprise_service(address)
    service.socket_connect_timeout = service.socket_read_timeout = timeout_s
    service.redirects = False
    with _warnings() as reasons:
        taken = service.notify(title=f"memr: {event.get(_TITLE, '')}", body=message(event), notify_type=severity(event))
    if not taken:
        raise HookError(next((line.strip() for line in reasons if line.strip()), "the service did not say why"))


def message(event: Mapping[str, Any]) -> str:
    """The headline first, then one line per other field."""
    facts = [f"{name}: {_text(value)}" for name, value in event.items() if name not in (_TITLE, _SENTENCE, "time_s")]
    return "\n".join([*([str(event[_SENTENCE])] if _SENTENCE in event else []), *facts]) or str(event.get(_TITLE, ""))


_OF_A_STOP = {0: apprise.NotifyType.SUCCESS, 128 + signal.SIGINT: apprise.NotifyType.INFO}


def severity(event: Mapping[str, Any]) -> apprise.NotifyType:
    """A stop with exit code 0 is a success, on request neither, else a failure; alarms and restarts are warnings."""
    match event.get(_TITLE):
        case Notice.STOP:
            return _OF_A_STOP.get(event.get("exit_code", 0), apprise.NotifyType.FAILURE)
        case Notice.ALARM | Notice.RESTART:
            return apprise.NotifyType.WARNING
    return apprise.NotifyType.INFO


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What Apprise logs in this thread meanwhile; its own LogCapture mixes threads."""
    handler = _ThreadsRecords()
    logger = logging.getLogger("apprise")
    if logger.getEffectiveLevel() > logging.WARNING:
        logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)


class _ThreadsRecords(logging.Handler):
    """Keeps the texts of warnings of the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
