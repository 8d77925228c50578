"""Names of events to their classes, and lines of events.jsonl back to events. Reads lines of every commit."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.record.events import failures, machine, resuming, training, workers
from cluster.record.events.event import Event, UnknownEvent
from cluster.record.events.training import AlarmRaised

EVENT_CLASSES: Mapping[str, type[Event]] = {
    found.written_as: found
    for module in (workers, training, resuming, failures, machine)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Event) and "written_as" in vars(found)
}
"""By the name in events.jsonl; an alarm's by the beginning of its name."""


def event_class(name: str) -> type[Event]:
    """UnknownEvent for a name that no class has."""
    if name.startswith(AlarmRaised.written_as):
        return AlarmRaised
    return EVENT_CLASSES.get(name, UnknownEvent)


def from_line(line: Mapping[str, Any], name: str | None = None) -> Event:
    """The event of a line of events.jsonl, or of an incident's file. name: where it is not the line that says it. What a
    class does not understand, of an older or a newer commit, is an UnknownEvent with what was written."""
    name = _text(line.get("event")) if name is None else name
    kind = event_class(name)
    if kind is UnknownEvent:
        return _unknown(name, line)
    try:
        return _adapter(kind.written_as).validate_python(kind.fields_of(name, line))
    except ValidationError:
        return _unknown(name, line)


@cache
def _adapter(written_as: str) -> TypeAdapter[Event]:
    return TypeAdapter(EVENT_CLASSES[written_as])


def _unknown(name: str, line: Mapping[str, Any]) -> UnknownEvent:
    details = {key: value for key, value in line.items() if key not in ("time_s", "event", "incident", "headline")}
    return UnknownEvent(name, _text(line.get("headline")), details, time_s=_seconds(line.get("time_s")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float:
    return value if isinstance(value, float) else 0.0
