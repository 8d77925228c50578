"""One event of a run: a frozen object with a name, a severity and a headline; one line of events.jsonl.

    who noticed it --Event--> Recorder.event --to_line--> events.jsonl --registry.from_line--> Event --> whoever looks
                                    +-- a PROBLEM: to_incident --> incidents/NNNN-<name>.json

The keys of a line are `time_s`, `event` (the name) and the fields of the class in their order. Runs of older commits are read
with the same classes: a key keeps its name and its meaning, and a field that older commits did not write has a default.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

_KEY = "key"
_MAX_LISTED = 4


class Severity(StrEnum):
    """INFO: the course of the run. WARNING: it goes on, and whoever watches should know. PROBLEM: an incident, for a person
    to read: a file of its own in incidents/, a message to the hooks."""

    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


def stored_as(key: str) -> Mapping[str, str]:
    """Metadata of a field whose key on disk is not its name."""
    return {_KEY: key}


@dataclass(frozen=True, slots=True)
class Event:
    """time_s: seconds since the epoch, set by whoever writes it; 0 where that is not known. level: the severity of all
    events of the class. shows: consoles show it although it is INFO."""

    time_s: float = field(default=0.0, kw_only=True)

    written_as: ClassVar[str]
    level: ClassVar[Severity] = Severity.INFO
    shows: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What events.jsonl calls it."""
        return self.written_as

    @property
    def severity(self) -> Severity:
        return self.level

    @property
    def headline(self) -> str:
        """What happened, in one plain sentence."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """What stands before the headline in a console."""
        return "note"

    @property
    def shown(self) -> bool:
        """Whether consoles show it at once."""
        return self.shows or self.severity is not Severity.INFO

    def at(self, time_s: float) -> Self:
        """The same event at a time in seconds since the epoch."""
        return replace(self, time_s=time_s)

    def facts(self) -> dict[str, Any]:
        """Its fields under their keys on disk."""
        return {_key(f): getattr(self, f.name) for f in fields(self) if f.name != "time_s"}

    def to_line(self) -> dict[str, Any]:
        """The JSON object of events.jsonl."""
        return {"time_s": self.time_s, "event": self.name} | self.facts()

    def to_incident(self) -> dict[str, Any]:
        """The JSON object of its file in incidents/."""
        return {"time_s": self.time_s, "incident": self.name} | self.facts()

    @classmethod
    def fields_of(cls, _name: str, line: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor that a line of this name holds."""
        return {f.name: line[_key(f)] for f in fields(cls) if _key(f) in line}


@dataclass(frozen=True, slots=True)
class Said(Event):
    """An event whose headline was put into words where it happened, and is on disk."""

    headline: str = field()  # a Field, or dataclass would take the property of Event for its default

    @property
    def label(self) -> str:
        return words(self.name)


@dataclass(frozen=True, slots=True)
class Incident(Said):
    """An event that a person should read."""

    level: ClassVar[Severity] = Severity.PROBLEM


@dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """A line of another commit: a name that this one does not know, or keys that its class does not understand. written:
    its headline, empty where it has none. details: its other keys."""

    written_as: ClassVar[str] = ""

    event_name: str
    written: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.event_name

    @property
    def severity(self) -> Severity:
        """What has a headline was written for people."""
        return Severity.PROBLEM if self.written else Severity.INFO

    @property
    def headline(self) -> str:
        if self.written:
            return self.written
        details = ", ".join(f"{key} {_short(value)}" for key, value in self.details.items())
        return f"{words(self.name)}: {details}" if details else words(self.name)

    @property
    def label(self) -> str:
        return words(self.name) if self.written else "note"

    def facts(self) -> dict[str, Any]:
        return ({"headline": self.written} if self.written else {}) | dict(self.details)


def words(name: str) -> str:
    """An event's name as words."""
    return name.replace("_", " ")


def counted(number: int, what: str) -> str:
    """Returns the number with its noun: "1 group", "2 groups"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _key(of: Field[Any]) -> str:
    return str(of.metadata.get(_KEY, of.name))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{len(value)} of them" if isinstance(value, list) and len(value) > _MAX_LISTED else str(value)
