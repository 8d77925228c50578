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
    NoticeFailed,
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
    NoticeFailed("notify.urls[1]", "alarm", "Failed to send JSON notification: error=404."),
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


OF_9962A33 = (
    (
        '{"time_s": 1795805342.0116, "event": "worker_lost", "headline": "worker died; process 1 is gone", "worker": "worker-0", "replaced": true}',
        WorkerLost,
        "worker lost: worker died; process 1 is gone",
    ),
    (
        '{"time_s": 1795805343.1641152, "event": "version_refused", "headline": "log-probs of v2 differ by 0.5", "worker": "w0", "version": 2, "refusals": 1, "follows": "again", "cause": "rounding"}',
        VersionRefused,
        "version refused: log-probs of v2 differ by 0.5",
    ),
    (
        '{"time_s": 1795805421.002558, "event": "alarm_entropy", "headline": "entropy fell", "action": "pause", "step": 6}',
        AlarmRaised,
        "alarm entropy: entropy fell",
    ),
    (
        '{"time_s": 1795805437.848406, "event": "rolled_back", "headline": "back to the weights of step-000004: 3 updates in a row were skipped, the last because a tensor is not finite"}',
        RolledBack,
        "rolled back: back to the weights of step-000004: 3 updates in a row were skipped, the last because a tensor is not finite",
    ),
    (
        '{"time_s": 1795805394.5802, "event": "memory_lost", "headline": "the memory\'s process died: process 7 is gone", "decision": "restart component"}',
        MemoryLost,
        "memory lost: the memory's process died: process 7 is gone",
    ),
    (
        '{"time_s": 1795805400.8453934, "event": "run_died", "headline": "the run\'s own process was killed by SIGKILL", "exit_code": -9}',
        RunDied,
        "run died: the run's own process was killed by SIGKILL",
    ),
    (
        '{"time_s": 1795805400.8459766, "event": "restart", "headline": "the run\'s own process was killed by SIGKILL", "restart": 1, "after_s": 1.0}',
        Restarted,
        "restart: the run's own process was killed by SIGKILL",
    ),
    (
        '{"time_s": 1795805408.067561, "event": "ray_died", "headline": "the run gave no sign of life within supervision.start_s = 0.5 s"}',
        RayDied,
        "ray died: the run gave no sign of life within supervision.start_s = 0.5 s",
    ),
    (
        '{"time_s": 1795805437.5, "event": "evaluation_invalid", "version": 3, "reason": "evaluation of version 3, held-out problem p: no judge"}',
        EvaluationInvalid,
        "evaluation invalid: evaluation of version 3, held-out problem p: no judge",
    ),
    (
        '{"time_s": 1795805341.4092708, "event": "scaled", "kind": "worker", "workers": 3, "before": 1}',
        Scaled,
        "note: pool 'worker' is to have 3 workers, until now 1",
    ),
    (
        '{"time_s": 1795805341.309708, "event": "joined", "worker": "worker-0", "seconds": 0.0}',
        Joined,
        "note: worker-0 joined, 0 s after its start",
    ),
    (
        '{"time_s": 1795805342.0112033, "event": "sampling_failed", "leases": [0, 1], "error": "worker died"}',
        SamplingFailed,
        "note: sampling of 2 problems failed: worker died",
    ),
    (
        '{"time_s": 1795805341.29045, "event": "published", "version": 0, "bytes": 71}',
        Published,
        "note: version 0 is published, 71 bytes",
    ),
    (
        '{"time_s": 1795805343.3602471, "event": "resumed", "step": 0, "updates_replayed": 1, "memory_calls_replayed": 1, "memory_difference": 0.0, "groups_taken_up": 0}',
        Resumed,
        "note: resumed from the checkpoint of update 0: 1 update and 1 call of memory made again (intrinsic rewards differ by at most 0), 0 groups kept",
    ),
    (
        '{"time_s": 1795805435.127355, "event": "settings_changed", "changes": {"learner.num_updates": {"before": 300, "now": 320}}}',
        SettingsChanged,
        "note: settings changed: learner.num_updates was 300, is 320",
    ),
)
"""Lines that runs of this commit wrote. Texts of those with a headline are what its console printed."""


@pytest.mark.parametrize(("line", "kind", "text"), OF_9962A33)
def test_lines_of_a_known_commit_are_their_class_and_are_written_as_they_were(
    line: str, kind: type[Event], text: str
) -> None:
    event = from_line(json.loads(line))
    assert type(event) is kind
    assert event_text(event) == text
    assert json.dumps(event.to_line()) == line


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

    def first_failures(self) -> list[Event]:
        return []

    def close(self, within_s: float) -> None: ...


def test_problems_are_sent_as_alarms_and_nothing_else(tmp_path: Path) -> None:
    sent: Any = Sent()
    recorder = Recorder(tmp_path, wall_clock=lambda: 9.0)
    recorder.add_watcher(NotifyWatcher(sent, tmp_path, recorder.event))
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
