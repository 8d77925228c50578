"""`[notify]`: who is notified that a run started, stopped or wants a person.

Loads without torch and Ray.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from contracts.settings import Settings, constant


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

    timeout_s: ClassVar = constant(10.0, last="9962a33")
    """Seconds that a hook may take for one event."""

    urls: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="addresses as Apprise has them: 'slack://..', 'ntfy://..', 'mailto://..', 'jsons://HOST/PATH' (a POST of "
        "JSON); '$NAME' is read from the environment, which keeps a secret address out of the run directory",
    )
    command: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="program and arguments, run without a shell; event as JSON on stdin, its name in MEMR_EVENT",
    )
    events: tuple[str, ...] = Field(EVENTS, description=f"events that are sent, of {', '.join(EVENTS)}")

    @model_validator(mode="before")
    @classmethod
    def _read_webhook_url(cls, values: Any) -> Any:
        """`webhook_url` of an older configuration is one of `urls`: a POST of JSON still, with Apprise's fields."""
        if not isinstance(values, dict) or "webhook_url" not in values:
            return values
        values = dict(values)
        if (old := values.pop("webhook_url")) is not None:
            _refuse_webhook(old)
            if isinstance(urls := values.get("urls") or (), list | tuple):  # what is no list is refused as `urls`
                values["urls"] = [*urls, old]
        return values

    @field_validator("urls", "command", "events", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("events")
    @classmethod
    def _are_sent(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in EVENTS]:
            raise ValueError(f"{', '.join(unknown)}: no such event is sent; there are {', '.join(EVENTS)}")
        return value

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for address in value or ():
            if not address.startswith("$"):
                apprise_service(address)
        return value

    @field_validator("command")
    @classmethod
    def _names_a_program(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value[0].strip() or any("\0" in part for part in value)):
            raise ValueError("command must begin with a program, for example ['notify-send', 'memr']")
        return value

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """A sentence per address whose variable the environment lacks."""
        return [
            f"notify.urls[{number}] is {address}, which this environment does not have: no notice is sent there"
            for number, address in enumerate(self.urls or ())
            if address.startswith("$") and address[1:] not in environment
        ]


def _refuse_webhook(address: Any) -> None:
    """Raises ValueError under the name that the configuration has."""
    try:
        if not isinstance(address, str):
            raise ValueError("it has to be a text")
        if not address.startswith("$"):
            apprise_service(address)
    except ValueError as error:
        raise ValueError(f"webhook_url: {error}") from None


def apprise_service(address: str) -> Any:
    """The service of an Apprise address; of any other http(s) address one that takes a POST of JSON.

    Raises ValueError, without the address, which may be secret.
    """
    from apprise import Apprise  # only where somebody is to be notified

    service = Apprise.instantiate(address)
    if service is None and address.startswith(("http://", "https://")):
        service = Apprise.instantiate(f"json{address.removeprefix('http')}")
    if service is None:
        raise ValueError(
            "an address that Apprise does not know; write it as https://github.com/caronc/apprise/wiki says, or "
            "https://HOST/PATH for a web address that takes a POST of JSON"
        )
    return service
