"""Sends one event to one service that Apprise knows: Slack, Discord, Telegram, ntfy, e-mail, a web address that takes JSON, ...

Addresses are Apprise's (https://github.com/caronc/apprise/wiki); none of them, which may be secret, gets into a message.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import apprise

from cluster.config.notify import Notice, apprise_service

_TITLE = "event"
_SENTENCE = "headline"


class ServiceError(Exception):
    """A service did not take an event; the text is the reason."""


def send_to_service(address: str, event: Mapping[str, Any], timeout_s: float) -> None:
    """timeout_s: of connecting, and of each wait for an answer. No redirect is followed: a POST would arrive as a GET.

    Raises ValueError for an address that Apprise does not know, ServiceError where the service did not take the event.
    """
    service = apprise_service(address)
    service.socket_connect_timeout = service.socket_read_timeout = timeout_s
    service.redirects = False
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log:  # type: ignore[no-untyped-call]
        taken = service.notify(title=f"memr: {event.get(_TITLE, '')}", body=message(event), notify_type=severity(event))
        reasons = log.getvalue().split("\n")
    if not taken:
        raise ServiceError(next((line.strip() for line in reasons if line.strip()), "the service did not say why"))


def message(event: Mapping[str, Any]) -> str:
    """The headline first, then one line per other field."""
    facts = [f"{name}: {_text(value)}" for name, value in event.items() if name not in (_TITLE, _SENTENCE, "time_s")]
    return "\n".join([*([str(event[_SENTENCE])] if _SENTENCE in event else []), *facts]) or str(event.get(_TITLE, ""))


def severity(event: Mapping[str, Any]) -> apprise.NotifyType:
    """A stop with exit code 0 is a success, with another one a failure; alarms and restarts are warnings."""
    match event.get(_TITLE):
        case Notice.STOP:
            return apprise.NotifyType.FAILURE if event.get("exit_code") else apprise.NotifyType.SUCCESS
        case Notice.ALARM | Notice.RESTART:
            return apprise.NotifyType.WARNING
    return apprise.NotifyType.INFO


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
