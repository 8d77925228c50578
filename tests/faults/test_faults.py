"""Faults done to a real run, one after the other: it goes on, loses nothing, trains nothing twice, and says what happened."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fault_run import FaultRun

pytestmark = pytest.mark.timeout(900)

PROCESS = r"process \d+ is gone"
GOLDEN = [
    ("worker", signal.SIGKILL, rf"the process of worker-\d+ died: .*; {PROCESS}"),
    ("memory", signal.SIGKILL, rf"the memory's process died: {PROCESS}"),
    ("learner", signal.SIGKILL, rf"the learner's process died: {PROCESS}"),
    (
        "memory",
        signal.SIGSTOP,
        r"the memory gave no answer within cluster.memory_call_s = 4 s: process \d+ is stopped .*",
    ),
    (
        "learner",
        signal.SIGSTOP,
        r"the learner gave no answer within cluster.learner_call_s = 4 s: process \d+ is stopped .*",
    ),
    ("worker", signal.SIGSTOP, r"worker-\d+ gave no sign of life within its deadline; .*; process \d+ is stopped .*"),
    ("controller", signal.SIGKILL, r"the run's own process was killed by SIGKILL"),
    ("ray head", signal.SIGKILL, r"Ray's head process \(gcs_server\) died"),
    ("raylet", signal.SIGKILL, r"Ray's node process \(raylet\) died"),
    (
        "controller",
        signal.SIGSTOP,
        r"the controller gave no sign of life for \d+ s \(supervision.heartbeat_s = 8\): the controller \(process \d+\) is stopped",
    ),
]


UPDATES = 450
"""At ten a second more than pass while every fault is found in turn."""
SETTINGS: dict[str, Any] = {
    "learner__num_updates": UPDATES,
    "learner__scripted__update_s": 0.1,
    "eval__problems": 0,
}


QUICK = [fault for fault in GOLDEN if fault[1] is signal.SIGKILL and fault[0] != "ray head"]
"""Each process of ours killed once, and Ray's node with one that restarts everything; all of GOLDEN runs in `make test-long`."""


@pytest.fixture
def run(tmp_path: Path) -> "FaultRun":
    return FaultRun(tmp_path, "r", **SETTINGS)


@pytest.mark.parametrize(
    ("faults", "updates"), [(QUICK, 120), pytest.param(GOLDEN, UPDATES, marks=pytest.mark.long)], ids=["killed", "all"]
)
def test_every_process_killed_or_stopped_in_turn(
    tmp_path: Path, faults: Sequence[tuple[str, signal.Signals, str]], updates: int
) -> None:
    run = FaultRun(tmp_path, "r", **SETTINGS | {"learner__num_updates": updates})
    try:
        for target, number, headline in faults:
            run.wait_for_step(run.steps() + 6)
            before = len(run.headlines())
            run.hit(target, number)
            until = time.monotonic() + 180
            while len(run.headlines()) == before:
                assert run.process.poll() is None, run.output[-3000:]
                assert time.monotonic() < until, f"nobody noticed: {target} {number.name}"
                time.sleep(0.05)
            found = run.headlines()[before:]
            assert len(found) == 1, found
            assert re.fullmatch(headline, found[0]), found[0]
        assert run.finish() == 0, run.output[-3000:]
    finally:
        run.end()
    books = run.books()
    assert (books.issued, books.trained) == (updates * 8, updates * 8)
    assert (books.lost, books.trained_twice, books.sampled_twice, books.steps_in_order) == (0, 0, 0, True)
    assert run.survivors() == []
    assert not re.search(r"\[state-dump\]|A worker died or was killed", run.output), (
        "memr says what happened, Ray's own words stay in its log files"
    )
    if faults is GOLDEN:
        stacks = next((run.path / "incidents").glob("*-hang-stacks.txt")).read_text()
        assert stacks.count("== process") > 5
        assert "asyncio" in stacks or "no stack" in stacks, "of Python processes, where the system lets one look"


def test_a_run_whose_supervisor_is_killed_writes_a_checkpoint_and_ends(run: FaultRun) -> None:
    try:
        run.wait_for_step(5)
        run.remember()
        run.hit("supervisor")
        assert run.survivors(within_s=40) == []
    finally:
        run.end()
    newest = max(int(path.name.split("-")[1]) for path in (run.path / "checkpoints").glob("step-*"))
    assert newest == run.steps() > 0
    assert run.books().trained_twice == 0


def test_a_signal_while_models_load_ends_the_start_and_leaves_a_directory_to_go_on_with(run: FaultRun) -> None:
    try:
        until = time.monotonic() + 60
        while not (run.path / "process.json").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        run.remember()
        run.process.send_signal(signal.SIGUSR1)
        assert run.finish(60) == 130, run.output[-2000:]
        assert run.survivors() == []
    finally:
        run.end()
    again = FaultRun(run.path.parent, "r", **SETTINGS)
    try:
        again.wait_for_step(2)
        again.process.send_signal(signal.SIGTERM)
        assert again.finish(60) == 130, again.output[-2000:]
    finally:
        again.end()


def test_a_second_interrupt_ends_at_once_and_the_run_can_be_taken_up(run: FaultRun) -> None:
    try:
        run.wait_for_step(5)
        controller = run.find("controller")
        controller.suspend()  # it cannot act on the first
        run.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(timeout=2)
        run.process.send_signal(signal.SIGINT)
        assert run.finish(30) == 130
        assert run.survivors() == []
    finally:
        run.end()
    assert run.books().trained_twice == 0
    assert "memr resume" in run.output


@pytest.mark.long
def test_a_run_that_cannot_be_kept_alive_ends_with_3_and_an_incident(tmp_path: Path) -> None:
    run = FaultRun(tmp_path, "r", **SETTINGS, supervision__run_restarts=1)
    try:
        for _ in range(2):
            run.wait_for_step(run.steps() + 3)
            run.hit("controller")
            time.sleep(1)
        assert run.finish(60) == 3
    finally:
        run.end()
    assert "its budget of restarts is spent" in run.headlines()[-1]
    assert "giving up" in run.output
