"""`[notify]`: who is notified that a run started, stopped or wants a person.

Loads without torch and Ray.
"""

from enum import StrEnum
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from contracts.settings import Settings


class Notice(StrEnum):
    """What may be sent, as notify.events names it. ALARM: any event that is a problem."""

    START = "start"
    ALARM = "alarm"
    RESTART = "restart"
    STOP = "stop"


EVENTS = tuple(notice.value for notice in Notice)


class NotifySettings(Settings):
    """Both ways may be set; neither can hold up or harm a run."""

    may_be_empty: ClassVar[frozenset[str]] = frozenset({"command"})

    webhook_url: str | None = Field(
        None,
        description="http(s) address that gets each event as a JSON POST; '$NAME' is read from the environment, which "
        "keeps a secret address out of the run directory",
    )
    command: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="program and arguments, run without a shell; event as JSON on stdin, its name in MEMR_EVENT",
    )
    timeout_s: float = Field(10.0, gt=0, description="seconds that a hook may take for one event")
    events: tuple[str, ...] = Field(EVENTS, description=f"events that are sent, of {', '.join(EVENTS)}")

    @field_validator("command", "events", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("events")
    @classmethod
    def _are_sent(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in EVENTS]:
            raise ValueError(f"{', '.join(unknown)}: no such event is sent; there are {', '.join(EVENTS)}")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("$"):
            check_webhook(value)
        return value

    @field_validator("command")
    @classmethod
    def _names_a_program(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value[0].strip() or any("\0" in part for part in value)):
            raise ValueError("command must begin with a program, for example ['notify-send', 'memr']")
        return value


def check_webhook(url: str) -> None:
    """Raises ValueError, without the address, which may be secret."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(character <= " " or character > "~" for character in url):
        raise ValueError("webhook_url is no address that begins with http:// or https://")
