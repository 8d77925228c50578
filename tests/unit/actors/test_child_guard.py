"""What a worker starts dies with it, and its scratch folder goes, however it dies."""

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
