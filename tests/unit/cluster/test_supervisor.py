"""The supervisor over small processes: what it starts again, what it gives up, what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.config.supervision import SupervisionSettings
from cluster.record.events.failures import NoticeFailed
from cluster.record.incidents import headlines
from cluster.record.run_processes import birth
from cluster.recovery.supervisor import Supervisor

FIRST_TIME = "import os, pathlib, signal, subprocess, sys, time; first = not pathlib.Path('{run}/was').exists(); pathlib.Path('{run}/was').touch(); "


def supervise(run: Path, body: str, **settings: Any) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what the hooks were told."""
    run.mkdir(exist_ok=True)
    told: list[dict[str, Any]] = []
    script = FIRST_TIME.format(run=run) + body
    limits = SupervisionSettings().model_copy(update=settings)
    supervisor = Supervisor([sys.executable, "-c", script], run, limits, say=lambda _text: None, tell=told.append)
    return supervisor.run(), told


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("code", [0, 2, 3, 130])
def test_what_no_restart_would_cure_is_the_exit_code(tmp_path: Path, code: int) -> None:
    found, told = supervise(tmp_path / "r", f"sys.exit({code})")
    assert found == code
    assert [event["event"] for event in told] == ["start", "stop"]
    assert told[-1]["exit_code"] == code


@pytest.mark.parametrize(
    ("death", "headline"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "the run's own process was killed by SIGKILL"),
        ("os.abort()", "the run's own process was killed by SIGABRT"),
        ("import nothing_of_this_name", "ended with code 1 while it started"),
    ],
)
def test_a_process_that_dies_is_started_again_and_the_cause_told(tmp_path: Path, death: str, headline: str) -> None:
    run = tmp_path / "r"
    code, told = supervise(run, f"first and exec({death!r})")
    assert code == 0
    assert [event["event"] for event in told] == ["start", "restart", "stop"]
    assert headline in told[1]["headline"]
    assert headline in headlines(run)[0]


def test_an_incident_that_the_process_left_itself_is_the_headline(tmp_path: Path) -> None:
    run = tmp_path / "r"
    (run / "incidents").mkdir(parents=True)
    leave = f"pathlib.Path('{run}/incidents/0001-part_lost.json').write_text('{{\\\"headline\\\": \\\"the learner died\\\"}}')"
    code, told = supervise(run, f"first and ({leave}, sys.exit(4))")
    assert code == 0
    assert told[1]["headline"] == "the learner died"


LEAVES = "pathlib.Path('{run}/incidents/0002-part_lost.json').write_text('{{\"headline\": \"the disk is full\"}}'); "


@pytest.mark.parametrize(
    ("leaves", "code", "headline"),
    [
        ("", 0, "finished"),
        (LEAVES, 0, "finished"),
        ("", 130, "stopped on request"),
        (LEAVES, 130, "stopped on request"),
        ("", 3, None),
        (LEAVES, 3, "the disk is full"),
        ("", 2, None),
    ],
)
def test_the_notice_of_the_end_gives_as_its_cause_no_incident_of_an_earlier_life(
    tmp_path: Path, leaves: str, code: int, headline: str | None
) -> None:
    run = with_old_incident(tmp_path / "r")
    _, told = supervise(run, f"{leaves.format(run=run)}sys.exit({code})")
    assert told[-1].get("headline") == headline


def test_the_notice_of_a_restart_gives_no_incident_of_an_earlier_life(tmp_path: Path) -> None:
    _, told = supervise(with_old_incident(tmp_path / "r"), "first and sys.exit(4)")
    assert told[1]["headline"] == "it ended with code 4"


def with_old_incident(run: Path) -> Path:
    (run / "incidents").mkdir(parents=True)
    (run / "incidents" / "0001-part_lost.json").write_text('{"headline": "of last week"}')
    return run


def test_a_notice_that_failed_is_said_and_an_event_once_there_is_a_run(tmp_path: Path) -> None:
    run, said = tmp_path / "r", list[str]()
    run.mkdir()
    failed = [NoticeFailed("notify.urls[0]", "start", "exit code 1")]
    body = f"import pathlib, time; pathlib.Path({str(run / 'manifest.json')!r}).touch(); time.sleep(1.5)"
    Supervisor(
        [sys.executable, "-c", body],
        run,
        SupervisionSettings(),
        say=said.append,
        failed_notices=lambda: [failed.pop()] if failed else [],
    ).run()
    assert said == ["notify.urls[0] did not take the event 'start': exit code 1"]
    assert events(run) == ["notice_failed"]


def test_what_keeps_dying_is_given_up_with_3_and_an_incident(tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, told = supervise(run, "os.kill(os.getpid(), signal.SIGKILL)", run_restarts=1)
    assert code == 3
    assert [event["event"] for event in told] == ["start", "restart", "stop"]
    assert events(run) == ["run_died", "restart", "run_died", "gave_up"]
    assert "that was failure 2 of the run, and its budget of restarts is spent" in headlines(run)[-1]


def test_a_process_that_gives_no_sign_of_life_is_ended_and_started_again(tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, _ = supervise(run, "first and time.sleep(600)", start_s=0.5)
    assert code == 0
    assert headlines(run)[0].startswith("the run gave no sign of life within supervision.start_s = 0.5 s")
    stacks = next((run / "incidents").glob("*-hang-stacks.txt")).read_text()
    assert "== process" in stacks


def test_a_hung_process_that_does_not_hear_the_stop_leaves_it_to_nobody(tmp_path: Path) -> None:
    """The next life would end by a request that was meant for this one."""
    run = tmp_path / "r"
    status = f'pathlib.Path(\'{run}/status.json\').write_text(\'{{"pid": %d, "progress": 0, "time_s": %f}}\' % (os.getpid(), time.time()))'
    code, _ = supervise(run, f"\nwhile first: {status}; time.sleep(0.1)", progress_s=0.5, stop_s=1.0)
    assert code == 0
    assert headlines(run)[0].startswith("no progress for")
    assert list((run / "control").iterdir()) == []


def test_nothing_of_a_run_outlives_it(tmp_path: Path) -> None:
    run = tmp_path / "r"
    child = "subprocess.Popen(['sleep', '600'], start_new_session=True)"
    code, _ = supervise(run, f"p = {child}; pathlib.Path('{run}/pid').write_text(str(p.pid)); time.sleep(2.5)")
    assert code == 0
    assert birth(int((run / "pid").read_text())) == 0.0


def test_a_signal_while_the_process_is_being_started_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*args, **kwargs)

    monkeypatch.setattr("cluster.recovery.supervisor.subprocess.Popen", interrupted)
    run = tmp_path / "r"
    code, told = supervise(run, "time.sleep(600)", stop_s=20)
    assert code == 130
    assert [event["event"] for event in told] == ["start", "stop"]
    assert not (run / "events.jsonl").exists(), "it ended by itself, not by force"


SAYS_IT_LIVES = "pathlib.Path('{run}/status.json').write_text('{{\"pid\": %d}}' % os.getpid())"
OBEYS = (
    "\nsignal.signal(signal.SIGINT, lambda *_: {end})\n{lives}\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(600)"
)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),  # its last evaluation was done when it was asked
        ("sys.exit(2)", 2),
        ("sys.exit(3)", 3),  # the disk was full when it wrote its checkpoint
        ("sys.exit(130)", 130),
        ("sys.exit(4)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3),
    ],
)
def test_a_run_that_was_asked_to_end_says_how_it_ended(tmp_path: Path, end: str, code: int) -> None:
    run = tmp_path / "r"
    found, told = supervise(run, OBEYS.format(end=end, lives=SAYS_IT_LIVES.format(run=run)), stop_s=60)
    assert found == code
    assert [event["event"] for event in told] == ["start", "stop"], "nobody starts again what was asked to end"


@pytest.mark.parametrize("end", ["sys.exit(1)", "sys.exit(4)"])
def test_a_start_that_is_broken_off_is_interrupted_whatever_its_libraries_make_of_it(tmp_path: Path, end: str) -> None:
    assert supervise(tmp_path / "r", OBEYS.format(end=end, lives="pass"), stop_s=60)[0] == 130


def test_a_run_that_does_not_obey_is_ended_by_force_with_130(tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, _ = supervise(run, OBEYS.format(end="None", lives=SAYS_IT_LIVES.format(run=run)), stop_s=0.5)
    assert code == 130
    assert "ended_by_force" in events(run)


def test_a_signal_after_the_end_is_known_does_not_change_it(tmp_path: Path) -> None:
    """While Ray is shut down and the summary is written."""
    ends = "ignore_signals(); [os.kill(os.getpid(), n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]"
    body = (
        "from cluster.recovery.run_process import ignore_signals, supervised\n"
        f"def life():\n    {ends}\n    time.sleep(0.1)\n    return 0\n"
        f"sys.exit(supervised(life, pathlib.Path({str(tmp_path)!r}), 5.0, os.getppid()))"
    )
    assert supervise(tmp_path / "r", f"\n{body}")[0] == 0
