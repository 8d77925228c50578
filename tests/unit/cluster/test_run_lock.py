"""One name started twice: one process has the run, the other is told at once who has."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.record import requests as run_control
from cluster.record.run_dir import claim_run, is_copy, owner_alive, refuse_live_run, surely_over
from cluster.record.run_lock import FILE, held, lock_run
from cluster.record.run_processes import birth
from contracts.errors import ConfigError

RACES = 50
RACER = """
import os, sys, time
from pathlib import Path
from cluster.record.run_lock import lock_run
from contracts.errors import ConfigError
for race in range(int(sys.argv[1])):
    run = Path(sys.argv[2]) / str(race)
    gate = Path(f"{sys.argv[2]}/gate{race}")
    Path(f"{gate}-{sys.argv[3]}").touch()
    while not all(Path(f"{gate}-{name}").exists() for name in "ab"):
        pass
    try:
        with lock_run(run):
            (run / "written").open("a").write(sys.argv[3])
            time.sleep(0.02)
            while not Path(f"{gate}-lost").exists():
                time.sleep(0.001)
            print(race, "won", os.getpid(), flush=True)
    except ConfigError as error:
        Path(f"{gate}-lost").touch()
        print(race, "lost", error, flush=True)
"""


def start(body: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", body, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())


def test_who_comes_second_is_told_who_holds_the_run(tmp_path: Path) -> None:
    with lock_run(tmp_path / "r"):
        assert held(tmp_path / "r")
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on "), lock_run(tmp_path / "r"):
            raise AssertionError("two hold one run")
    assert not held(tmp_path / "r")


def test_of_two_processes_one_has_the_run_and_the_other_is_told_who(tmp_path: Path) -> None:
    racers = [start(RACER, str(RACES), str(tmp_path), name) for name in "ab"]
    told = []
    for racer in racers:
        output, errors = racer.communicate(timeout=120)
        assert racer.returncode == 0, errors
        told.append([line.split(" ", 2) for line in output.splitlines()])
    for race, both in enumerate(zip(*told, strict=True)):
        assert sorted(line[1] for line in both) == ["lost", "won"], f"race {race}: {both}"
        winner = next(i for i, line in enumerate(both) if line[1] == "won")
        refusal = both[1 - winner][2]
        assert f"process {racers[winner].pid} on " in refusal
        assert f"`memr status {tmp_path / str(race)}`" in refusal
        assert (tmp_path / str(race) / "written").read_text() == "ab"[winner], "the loser wrote nothing"


HOLDER = """
import sys, time
from pathlib import Path
from cluster.record.run_lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_holder_that_is_killed_leaves_no_stale_lock(tmp_path: Path) -> None:
    holder = start(HOLDER, str(tmp_path / "r"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert held(tmp_path / "r")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert not held(tmp_path / "r")
    with lock_run(tmp_path / "r"):
        assert json.loads((tmp_path / "r" / FILE).read_text())["pid"] == os.getpid()


HEIR = """
import subprocess, sys, time
from pathlib import Path
from cluster.record.run_lock import lock_run
child = (
    "import sys, time; from pathlib import Path; from cluster.record.run_lock import keep_lock;"
    "keep_lock(Path(sys.argv[1]), int(sys.argv[2])); print('kept', flush=True); time.sleep(60)"
)
with lock_run(Path(sys.argv[1])) as lock:
    for _ in range(2):
        heir = subprocess.Popen([sys.executable, "-c", child, sys.argv[1], str(lock)], pass_fds=[lock], stdout=subprocess.PIPE)
        heir.stdout.readline()
        if _ == 0:
            heir.kill(); heir.wait()
    print(heir.pid, flush=True)
    time.sleep(60)
"""


def test_the_lock_outlives_a_restart_of_the_child_and_the_death_of_the_supervisor(tmp_path: Path) -> None:
    supervisor = start(HEIR, str(tmp_path / "r"))
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    assert held(tmp_path / "r"), "its first child is gone, the lock is not"
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    assert supervisor.stderr is not None
    supervisor.stderr.close()
    with pytest.raises(ConfigError, match="is running"), lock_run(tmp_path / "r"):
        pass
    os.kill(child, signal.SIGKILL)
    limit = time.monotonic() + 30
    while held(tmp_path / "r"):
        assert time.monotonic() < limit
        time.sleep(0.01)
    with lock_run(tmp_path / "r"):
        pass


def test_a_run_that_never_began_leaves_nothing_and_one_that_did_stays(tmp_path: Path) -> None:
    with lock_run(tmp_path / "a" / "r"):
        pass
    assert not (tmp_path / "a" / "r").exists()
    with lock_run(tmp_path / "b"):
        (tmp_path / "b" / "config.toml").touch()
    assert (tmp_path / "b" / "config.toml").exists()


def test_a_folder_that_was_deleted_under_its_holder_is_a_new_run(tmp_path: Path) -> None:
    with lock_run(tmp_path / "r"):
        (tmp_path / "r" / FILE).unlink()
        (tmp_path / "r").rmdir()
        with lock_run(tmp_path / "r"):
            assert held(tmp_path / "r")


def test_a_place_that_cannot_be_written_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot write the run directory .*Set run.directory"),
        lock_run(tmp_path / "file" / "r"),
    ):
        pass


def test_a_run_that_is_over_is_asked_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would take the request, and nobody is waited for."""
    (tmp_path / "control").mkdir()
    gone = start("pass")
    gone.communicate()
    (tmp_path / "process.json").write_text(json.dumps({"host": platform.node(), "owners": {gone.pid: 1.0}}))
    monkeypatch.setattr(run_control, "leave_request", lambda *_args, **_request: pytest.fail("it was asked"))
    with pytest.raises(ConfigError, match="takes no requests: it is not running"):
        run_control.ask(tmp_path, ask="stop")


def test_a_life_does_not_hear_what_the_one_before_was_asked(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "1.json").write_text('{"ask": "stop"}')
    fresh = run_control.leave_request(tmp_path, ask="stop")
    claim_run(tmp_path, supervisor=None)
    assert list((tmp_path / "control").iterdir()) == [fresh], "asked while it starts: that is for this one"
    assert not surely_over(tmp_path), "this process is at work on it"


def test_a_copy_of_a_live_run_is_told_from_it_and_may_go_on(tmp_path: Path) -> None:
    """process.json travels with the copy, and its processes work on the original."""
    live, copy, moved = tmp_path / "live", tmp_path / "copy", tmp_path / "moved"
    with subprocess.Popen(["sleep", "600"]) as owner:
        (live / "control").mkdir(parents=True)
        claim_run(live, supervisor=owner.pid)
        shutil.copytree(live, copy)
        assert not owner_alive(copy)
        assert is_copy(copy)
        refuse_live_run(copy)
        with pytest.raises(ConfigError, match="takes no requests: it is not running"):
            run_control.ask(copy, ask="stop")
        live.rename(moved)
        assert owner_alive(moved), "the same folder under another name"
        assert not is_copy(moved)
        with pytest.raises(ConfigError, match=f"is running: process {owner.pid}"):
            refuse_live_run(moved)
        claim_run(copy, supervisor=None)
        assert owner_alive(copy)
        assert not is_copy(copy)
        owner.kill()


def test_a_claim_of_an_earlier_commit_names_no_folder_and_is_believed(tmp_path: Path) -> None:
    claim = {"host": platform.node(), "owners": {os.getpid(): birth(os.getpid())}}
    (tmp_path / "process.json").write_text(json.dumps(claim))
    assert owner_alive(tmp_path)
    assert not is_copy(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]", "\0" * 40])
def test_a_damaged_claim_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "process.json").write_text(damage)
    assert not owner_alive(tmp_path)
    refuse_live_run(tmp_path)
    claim_run(tmp_path, supervisor=None)
    assert owner_alive(tmp_path)
