"""Stops, by the real command: a run that paused goes on, one that finished is asked for more, one name is started twice."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.record.events.resuming import SettingsChanged
from cluster.record.run_view import read_run
from tests.integration.test_resume_run import finish, start
from tests.integration.test_scripted_run import ROOT, lines

pytestmark = pytest.mark.timeout(500)


def resume(path: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cluster", "resume", str(path)]
    overrides = [text for setting in settings for text in ("--set", setting)]
    return subprocess.run([*command, *overrides], capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.long
@pytest.mark.parametrize("lag", [0, 2])
def test_a_run_that_paused_over_its_first_batch_goes_on_and_then_for_more_updates(tmp_path: Path, lag: int) -> None:
    settings: dict[str, Any] = {
        "learner.max_policy_lag": lag,
        "learner.num_updates": 6,
        "eval.problems": 4,
        "actors.scripted.accuracy": 0.0,
        "actors.scripted.accuracy_per_version": 0.0,
        "alarms.preflight_zero_variance": "pause",
    }
    path = tmp_path / "r"
    paused = start("scripted", tmp_path, "r", settings)
    output, _ = paused.communicate(timeout=300)
    assert paused.returncode == 3, output[-3000:]
    assert "100% of groups give no gradient" in " ".join(output.split())

    on = resume(path, "alarms.preflight_zero_variance=warn")
    assert on.returncode == 0, on.stdout[-3000:] + on.stderr[-3000:]
    ledger = read_run(path).metrics[-1]["ledger"]
    assert ledger == {"issued": 48, "trained": 48, "dropped": 0, "failed": 0, "in_flight": 0, "buffered": 0}
    assert read_run(path).config.alarms.preflight_zero_variance == "warn", "written down: the next resume has it too"

    ignored = resume(path, "alarms.entropy=warn")
    assert ignored.returncode == 2
    assert "has made all of its 6 updates" in " ".join(ignored.stderr.split())

    more = resume(path, "learner.num_updates=9")
    assert more.returncode == 0, more.stdout[-3000:] + more.stderr[-3000:]
    record = read_run(path)
    assert [line["step"] for line in record.metrics] == list(range(1, 10))
    assert [line["step"] for line in record.evals if line["step"] in (0, 6, 9)].count(6) == 1, "measured once"
    assert {line["step"] for line in record.evals} >= {0, 6, 9}
    assert record.config.learner.num_updates == 9
    assert record.summary is not None
    assert (record.summary["exit_code"], record.summary["updates"]) == (0, 9)
    changes = [event.changes for event in record.events if isinstance(event, SettingsChanged)]
    assert changes[-1] == {"learner.num_updates": {"before": 6, "now": 9}}
    trained = [line["lease_id"] for line in lines(path / "ledger" / "events.jsonl") if line["fate"] == "trained"]
    assert sorted(trained) == list(range(72))


def test_of_two_commands_with_one_name_one_trains_and_the_other_says_who_does(tmp_path: Path) -> None:
    settings = {"learner.num_updates": 3, "eval.problems": 0}
    both = [start("scripted", tmp_path, "r", settings) for _ in range(2)]
    output = {process.pid: process.communicate(timeout=300)[0] for process in both}
    codes = {process.pid: process.returncode for process in both}
    assert sorted(codes.values()) == [0, 2], "\n".join(output.values())[-3000:]
    winner = next(pid for pid, code in codes.items() if code == 0)
    loser = next(pid for pid, code in codes.items() if code == 2)
    told = " ".join(output[loser].split())
    assert re.search(rf"r is running: process {winner} on \S+, for \d+\.\d min\. `memr status", told), told
    assert len(lines(tmp_path / "r" / "metrics.jsonl")) == 3
    again = start("scripted", tmp_path, "r", settings)
    assert "has run already" in " ".join(finish(again).split())
