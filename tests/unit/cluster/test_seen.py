"""What a run notices reaches whoever looks: alarms and other incidents in consoles, summary, status and report."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.commands.report import write_report
from cluster.commands.summary import show_status, show_summary
from cluster.record.events.event import Event, UnknownEvent
from cluster.record.events.machine import DiskLow
from cluster.record.events.training import AlarmRaised, RolledBack, UpdateSkipped
from cluster.record.events.workers import WorkerLost
from cluster.record.incidents import incident_lines, incidents, write_incident
from cluster.record.recorder import Recorder, Watcher
from cluster.record.run_view import read_run
from cluster.watch.console import LiveConsole, PlainConsole
from tests.unit.cluster.test_recorder import finished

ALARM = "the last 25 updates: 100% of groups give no gradient (limit 95%). Choose another task difficulty"
ZERO_VARIANCE = AlarmRaised(ALARM, "zero_variance", "warn", step=25)


def consoles(kind: type) -> tuple[Console, Watcher]:
    console = Console(width=100, height=30, record=True, force_terminal=kind is LiveConsole)
    watcher: Watcher = kind(console, 2, "title") if kind is LiveConsole else kind(console, 2)
    return console, watcher


@pytest.mark.parametrize("kind", [PlainConsole, LiveConsole])
def test_a_console_shows_an_alarm_when_it_is_raised(kind: type, tmp_path: Path) -> None:
    console, watcher = consoles(kind)
    recorder = Recorder(tmp_path, [watcher])
    recorder.event(ZERO_VARIANCE)
    recorder.close()
    assert "zero variance" in console.export_text(clear=False)
    assert "100% of groups give no gradient" in console.export_text()


@pytest.mark.parametrize("kind", [PlainConsole, LiveConsole])
@pytest.mark.parametrize(
    "incident",
    [
        WorkerLost("what a person should read", "w0", replaced=True),
        UpdateSkipped("what a person should read", 3),
        RolledBack("what a person should read"),
        DiskLow("what a person should read"),
        UnknownEvent("of_a_later_version", "what a person should read"),
    ],
)
def test_a_console_shows_every_incident_whatever_its_name(kind: type, incident: Event, tmp_path: Path) -> None:
    console, watcher = consoles(kind)
    recorder = Recorder(tmp_path, [watcher])
    recorder.event(incident)
    recorder.close()
    assert "what a person should read" in console.export_text()


def test_the_live_console_keeps_an_alarm_in_sight_while_other_things_happen() -> None:
    console, watcher = consoles(LiveConsole)
    watcher.show_event(ZERO_VARIANCE)
    for worker in range(50):
        watcher.show_event(WorkerLost(f"worker-{worker} died", f"worker-{worker}", replaced=True))
    watcher.close()
    text = console.export_text()
    assert "give no gradient" in text
    assert "worker-49 died" in text
    assert "worker-7 died" not in text, "the last few are enough"


def test_incidents_are_told_by_kind_alarms_first(tmp_path: Path) -> None:
    for event in [
        WorkerLost("w0 died", "w0", True),
        WorkerLost("w1 died", "w1", True),
        AlarmRaised("still", "entropy"),
    ]:
        write_incident(tmp_path, event)
    assert incident_lines(incidents(tmp_path)) == ["alarm entropy: still", "worker lost, 2 times, the last: w1 died"]


def test_an_unreadable_incident_hides_no_other(tmp_path: Path) -> None:
    write_incident(tmp_path, AlarmRaised("still", "entropy"))
    (tmp_path / "incidents" / "0002-torn.json").write_text('{"headl')
    (tmp_path / "incidents" / "notes.json").write_text('{"headline": "written by hand"}')
    assert incident_lines(incidents(tmp_path)) == ["alarm entropy: still", "notes: written by hand"]


async def with_alarm(tmp_path: Path) -> Path:
    _, path = await finished(tmp_path, eval={"problems": 4, "every_updates": 0})
    write_incident(path, ZERO_VARIANCE)
    return path


@pytest.mark.parametrize("show", [show_summary, show_status])
async def test_summary_and_status_tell_an_alarm(show: Any, tmp_path: Path) -> None:
    path = await with_alarm(tmp_path)
    console = Console(width=100, record=True)
    show(console, read_run(path))
    text = console.export_text()
    assert ALARM in text
    assert str(path / "incidents") in text


async def test_a_run_without_evaluations_shows_no_empty_table(tmp_path: Path) -> None:
    _, path = await finished(tmp_path, eval={"problems": 0, "every_updates": 0})
    console = Console(width=100, record=True)
    show_summary(console, read_run(path))
    text = console.export_text()
    assert "accuracy was not measured: eval.problems = 0" in text
    assert "before" not in text


async def test_the_report_tells_an_alarm(tmp_path: Path) -> None:
    path = await with_alarm(tmp_path)
    assert "100% of groups give no gradient (limit 95%)" in write_report(path).read_text()
