"""docs/events.md: every event of a run with what it means and holds. `python -m tests.events_page` writes it anew."""

import inspect

from cluster.record.events.event import Event, Incident, Said
from cluster.record.events.registry import EVENT_CLASSES
from cluster.record.events.training import AlarmRaised
from tests.tree import ROOT

PAGE = ROOT / "docs" / "events.md"
INTRODUCTION = """# Events

What a run writes to `events.jsonl`, one JSON object a line: `time_s` (seconds since the epoch), `event` (the name) and the keys named below. Written by
`python -m tests.events_page` from the classes in `cluster/record/events/`, checked by `tests/unit/cluster/test_events.py`.

A *problem* is an incident: it has a `headline` and, with the same keys, a file in `incidents/`; consoles show it, it is sent as the notice `alarm`, and
`memr status`, the summary and the report list it by name. A *warning* is shown in consoles as a note. *info* is the course of the run; of these, consoles show those marked so.

| event | severity | what happened; its keys |
|---|---|---|
"""


def page() -> str:
    return INTRODUCTION + "".join(_row(name, kind) for name, kind in sorted(EVENT_CLASSES.items()))


def _row(name: str, kind: type[Event]) -> str:
    written = f"{name}*" if kind is AlarmRaised else name
    severity = f"{kind.level.value}, shown" if kind.shows else kind.level.value
    text = " ".join((inspect.getdoc(kind) or "").split())
    if issubclass(kind, Said) and not issubclass(kind, Incident) and "headline:" not in text:
        text += " headline: in words."
    return f"| `{written}` | {severity} | {text} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
