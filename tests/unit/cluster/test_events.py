"""Each event survives the way to disk and back, says what happened in one line, and lines of older commits read as events."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.notify import Notice, NotifySettings
from cluster.record.events.event import Event, Severity, UnknownEvent
from cluster.record.events.failures import (
    Crashed,
    EndedByForce,
    ErrorUnderWay,
    GaveUp,
    LearnerLost,
    LearnerRevived,
    MemoryLost,
    MemoryRevived,
    PartLost,
    ProcessLeft,
    RayDied,
    RayFailed,
    Restarted,
    RunDied,
    Stopped,
    Stuck,
    SupervisorDied,
    WatcherFailed,
)
from cluster.record.events.machine import DiskFull, DiskLow, ProcessGrows, Projected
from cluster.record.events.registry import EVENT_CLASSES, event_class, from_line
from cluster.record.events.resuming import (
    AdaptersSetAside,
    AnswerRuleChanged,
    CheckpointPassedOver,
    LogCutShort,
    NumbersReadOtherwise,
    ReplayedDifferently,
    RequestRefused,
    Resumed,
    SettingsChanged,
    TornLogCut,
)
from cluster.record.events.training import (
    AlarmRaised,
    CheckpointWritten,
    EvaluationFailed,
    EvaluationInvalid,
    EvaluationSkipped,
    FirstBatchTooSmall,
    LearnerSays,
    MemoryLate,
    Mismatch,
    OutOfMemory,
    Published,
    RolledBack,
    UpdateLost,
    UpdateSkipped,
)
from cluster.record.events.workers import (
    AdoptFailed,
    Autoscaled,
    AutoscaleRefused,
    CouldNotBeJudged,
    Draining,
    Joined,
    Left,
    Proven,
    Quarantined,
    SampledAgain,
    SamplingFailed,
    Scaled,
    VersionRefused,
    VersionSkipped,
    WorkerLost,
)
from cluster.record.recorder import Recorder
from cluster.watch.console import event_text
from cluster.watch.notify_watcher import NotifyWatcher
from tests.events_page import PAGE, page

SENTENCE = "what happened, in words"
EXAMPLES: tuple[Event, ...] = (
    Joined("worker-0", 3.123),
    Left("worker-0"),
    Draining("worker-0", 1),
    Scaled("a100", 4, before=2),
    Autoscaled(4, "the learner waits for rollouts 40% of its time"),
    AutoscaleRefused(4, "no GPU is left"),
    Proven("worker-0", 7),
    AdoptFailed("worker-0", 7, "no such version"),
    SamplingFailed((1, 2, 3), "the engine crashed"),
    SampledAgain(5, "worker-0", ("abort", "timeout")),
    WorkerLost(SENTENCE, "worker-0", replaced=False),
    VersionRefused(SENTENCE, "worker-0", 7, 2, follows="wait", cause="rounding"),
    VersionSkipped(SENTENCE, 7, "a100", serves=None, newest=7),
    Quarantined(SENTENCE),
    CouldNotBeJudged(SENTENCE, "worker-0"),
    Published(7, 4_000_000),
    CheckpointWritten(6, "runs/r/checkpoints/step-000006"),
    MemoryLate(12),
    Mismatch(6, 0.0125, 0.25),
    UpdateLost(6, 6, 0.42),
    FirstBatchTooSmall(2, "first batch: 98% of rollouts ran into the token limit (limit 95%)"),
    LearnerSays(SENTENCE),
    AlarmRaised(SENTENCE, "entropy", "pause", step=6),
    OutOfMemory(SENTENCE),
    UpdateSkipped(SENTENCE, 6),
    RolledBack(SENTENCE),
    EvaluationFailed(SENTENCE),
    EvaluationSkipped(SENTENCE),
    EvaluationInvalid(SENTENCE, 6),
    EvaluationInvalid(SENTENCE, 6, again=True),
    Resumed(6, 3, 4, 0.0, groups_taken_up=5),
    CheckpointPassedOver("step-000006 is damaged"),
    ReplayedDifferently(6, 6),
    SettingsChanged(
        {"actors.num_workers": {"before": 1, "now": 2}, "notify.command": {"before": None, "now": ["say"]}}
    ),
    NumbersReadOtherwise(SENTENCE),
    AnswerRuleChanged(SENTENCE, rule=3, was=1),
    AdaptersSetAside(("v000007-abc", "v000008-def")),
    TornLogCut(17),
    LogCutShort(SENTENCE),
    RequestRefused("17.json", "there is no pool 'b'"),
    Stopped(SENTENCE),
    PartLost(SENTENCE),
    ErrorUnderWay(SENTENCE, "TypeError"),
    Crashed(SENTENCE, "Traceback ..\n"),
    RayFailed(SENTENCE),
    RayDied(SENTENCE),
    Stuck(SENTENCE),
    RunDied(SENTENCE, -9),
    SupervisorDied(SENTENCE),
    GaveUp(SENTENCE),
    Restarted(SENTENCE, 1, 2.0),
    EndedByForce(SENTENCE),
    ProcessLeft(123, "python"),
    LearnerLost(SENTENCE, "restart component"),
    MemoryLost(SENTENCE, "restart run"),
    LearnerRevived(2.5),
    MemoryRevived(2.5),
    WatcherFailed("TensorboardWatcher", "OSError('no space')"),
    Projected(2**34, 2**36, 2**30, 2**33),
    DiskLow(SENTENCE),
    DiskFull(SENTENCE),
    ProcessGrows(SENTENCE),
)


def through_json(line: dict[str, Any]) -> Any:
    return json.loads(json.dumps(line))


def test_every_class_has_an_example_and_a_name_of_its_own() -> None:
    assert {type(event) for event in EXAMPLES} == set(EVENT_CLASSES.values())
    assert len(EVENT_CLASSES) == len({type(event) for event in EXAMPLES}), "two classes with one name"


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.name)
def test_an_event_reads_as_what_was_written(event: Event) -> None:
    event = event.at(1.5)
    line = through_json(event.to_line())
    assert list(line)[:2] == ["time_s", "event"]
    back = from_line(line)
    assert type(back) is type(event)
    assert (back.name, back.time_s, back.headline, back.severity) == (event.name, 1.5, event.headline, event.severity)
    if not isinstance(event, Crashed):  # its traceback is in the incident's file alone
        assert back == event


@pytest.mark.parametrize("event", [e for e in EXAMPLES if e.severity is Severity.PROBLEM], ids=lambda event: event.name)
def test_an_incident_reads_as_what_was_written(event: Event) -> None:
    line = through_json(event.at(1.5).to_incident())
    assert list(line)[:3] == ["time_s", "incident", "headline"]
    assert line["incident"] == event.name
    assert from_line(line, event.name) == event.at(1.5)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.name)
def test_a_headline_is_one_line_and_not_the_name_again(event: Event) -> None:
    assert event.headline.strip() == event.headline != ""
    assert "\n" not in event.headline
    assert "_" not in event.label
    if event.severity is Severity.PROBLEM:
        assert "headline" in event.to_line(), "older readers look for it"
        assert event_text(event) == f"{event.name.replace('_', ' ')}: {event.headline}"
    if event.label == "note":
        assert "headline" not in event.to_line(), "older readers take it for an incident"


OF_9962A33 = ()

OF_57C9E8C = (
    ('{"time_s": 1.0, "event": "alarm_entropy", "headline": "h", "action": "pause"}', AlarmRaised),
    (
        '{"time_s": 1.0, "event": "version_refused", "headline": "h", "worker": "w", "version": 1, "refusals": 2, "retired": true}',
        VersionRefused,
    ),
    ('{"time_s": 1.0, "event": "update_skipped", "headline": "h", "version": 3}', UpdateSkipped),
    (
        '{"time_s": 1.0, "event": "version_skipped", "headline": "h", "version": 3, "serves": 2, "newest": 3}',
        VersionSkipped,
    ),
    ('{"event": "watcher_failed", "watcher": "LiveConsole", "error": "OSError()"}', WatcherFailed),
)


@pytest.mark.parametrize(("line", "kind"), OF_57C9E8C)
def test_lines_of_older_commits_that_lack_a_key_are_their_class(line: str, kind: type[Event]) -> None:
    event = from_line(json.loads(line))
    assert type(event) is kind
    assert event.headline in ("h", "LiveConsole failed and shows nothing more: OSError()")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"event": "of_a_later_commit", "headline": "h", "x": 1}, "of a later commit: h"),
        ({"event": "of_a_later_commit", "x": 1, "y": [1] * 9}, "note: of a later commit: x 1, y 9 of them"),
        ({"event": "stopped"}, "note: stopped"),
        ({"event": "joined", "worker": 5, "seconds": "soon"}, "note: joined: worker 5, seconds soon"),
        ({"event": "run_died", "headline": "h", "exit_code": None}, "run died: h"),
        ({"event": {}, "headline": ["h"]}, "note: "),
    ],
)
def test_what_no_class_understands_is_kept_as_it_was_written(line: dict[str, Any], text: str) -> None:
    event = from_line({"time_s": 1.0} | line)
    assert isinstance(event, UnknownEvent)
    assert event_text(event) == text
    assert event.severity is (Severity.PROBLEM if isinstance(line.get("headline"), str) else Severity.INFO)
    assert event.time_s == 1.0
    if isinstance(line["event"], str):
        assert event.to_line() == {"time_s": 1.0} | line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({key for event in EXAMPLES for key in event.to_line()} - {"event"})


@given(
    name=st.sampled_from([event.name for event in EXAMPLES]) | st.text(),
    rest=st.dictionaries(st.sampled_from(KEYS), JSON),
)
def test_no_line_is_refused(name: str, rest: dict[str, Any]) -> None:
    """Whatever a damaged or foreign line holds, the others of the run are read."""
    event = from_line({"event": name} | rest)
    assert isinstance(event, UnknownEvent | event_class(name))
    assert isinstance(event.headline, str)
    assert isinstance(event.time_s, float)


class Sent:
    def __init__(self) -> None:
        self.notices: list[dict[str, Any]] = []

    def send(self, notice: dict[str, Any]) -> None:
        self.notices.append(notice)

    def close(self, within_s: float) -> None: ...


def test_problems_are_sent_as_alarms_and_nothing_else(tmp_path: Path) -> None:
    sent: Any = Sent()
    recorder = Recorder(tmp_path, [NotifyWatcher(sent, tmp_path)], wall_clock=lambda: 9.0)
    for event in EXAMPLES:
        recorder.event(event)
    recorder.close()
    problems = [event for event in EXAMPLES if event.severity is Severity.PROBLEM]
    assert [notice["incident"] for notice in sent.notices] == [event.name for event in problems]
    assert {notice["event"] for notice in sent.notices} == {Notice.ALARM}
    assert set(Notice) == set(NotifySettings().events)
    [lost] = [notice for notice in sent.notices if notice["incident"] == "worker_lost"]
    assert lost == {
        "time_s": 9.0,
        "event": "alarm",
        "headline": SENTENCE,
        "worker": "worker-0",
        "replaced": False,
        "incident": "worker_lost",
        "run": str(tmp_path),
    }
    files = sorted(path.name.partition("-")[2] for path in (tmp_path / "incidents").iterdir())
    assert files == sorted(f"{event.name}.json" for event in problems)


def test_the_page_of_events_is_that_of_the_classes() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.events_page"
    assert [name for name in EVENT_CLASSES if f"| `{name}" not in PAGE.read_text()] == []
