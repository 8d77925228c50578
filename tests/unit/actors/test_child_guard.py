"""What a worker starts dies with it, and its scratch folder goes, however it dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PARENT = """
import subprocess, sys, time
from actors.child_guard import guard_children
scratch = guard_children()
(scratch / "adapter").write_text("bytes")
child = subprocess.Popen([sys.executable, "-c", "import time, subprocess, sys;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"])
print(child.pid, scratch, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_and_grandchildren_die_with_the_process(number: signal.Signals) -> None:
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    with parent.stdout:
        lines = [parent.stdout.readline().split() for _ in range(2)]
        [grandchild] = next(line for line in lines if len(line) == 1)
        child, scratch = next(line for line in lines if len(line) == 2)
        assert psutil.pid_exists(int(child))
        assert psutil.pid_exists(int(grandchild))
        parent.send_signal(number)
        parent.wait(timeout=10)
    until = time.monotonic() + 20
    while not (gone(int(child)) and gone(int(grandchild)) and not Path(scratch).exists()):
        assert time.monotonic() < until, f"{child}, {grandchild} or {scratch} is still there"
        time.sleep(0.05)


def test_a_scratch_folder_whose_guard_was_killed_too_goes_with_the_next_worker(tmp_path: Path) -> None:
    """A run that is ended by force loses process and guard at once."""
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    parents = []
    folders: list[set[Path]] = []
    for _ in range(3):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
        )
        parents.append(parent)
        assert parent.stdout is not None
        with parent.stdout:
            parent.stdout.readline()
            parent.stdout.readline()
        folders.append(set(tmp_path.iterdir()))
        if len(parents) == 2:
            end_with_guards(parents[0])
    try:
        assert [len(found) for found in folders] == [1, 2, 2]
        assert folders[2] & folders[1] == folders[1] - folders[0], (
            "of the one that was ended, not of the one that lives"
        )
    finally:
        for parent in parents[1:]:
            end_with_guards(parent)


def end_with_guards(parent: subprocess.Popen[str]) -> None:
    tree = psutil.Process(parent.pid).children(recursive=True)
    guards = [process for process in tree if "pidfd_open" in " ".join(process.cmdline())]
    for process in [*guards, psutil.Process(parent.pid), *tree]:
        process.kill() if process.is_running() else None
    parent.wait(timeout=10)
