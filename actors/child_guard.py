"""No orphans: what this process starts dies with it, however it dies.

The process makes itself the leader of its own process group, which its children join, and starts a small guard outside
the group. The guard waits for the process to end, by any signal, and then ends what is left of the group and removes
the process's scratch folder. Where the guard was killed too, the next process that asks for a scratch folder removes it:
a live process holds a lock on its own.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_GUARD = """
import os, select, shutil, signal, sys
pid, group = int(sys.argv[1]), int(sys.argv[2])
try:
    select.select([os.pidfd_open(pid)], [], [])
except ProcessLookupError:
    pass
try:
    os.killpg(group, signal.SIGKILL)
except (ProcessLookupError, PermissionError):
    pass
shutil.rmtree(sys.argv[3], ignore_errors=True)
"""


_PREFIX = "memr-worker-"
_LOCK = "in-use"


def guard_children() -> Path:
    """Call once, before the first child is started; returns a scratch folder that lives as long as the process.

    Linux only; elsewhere there is a folder and no guard.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _lock(scratch)
    if not hasattr(os, "pidfd_open"):
        return scratch
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _GUARD, str(os.getpid()), str(os.getpgrp()), str(scratch)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return scratch


def _lock(scratch: Path) -> None:
    """Held until this process ends."""
    fcntl.flock(os.open(scratch / _LOCK, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)


def _remove_abandoned(parent: Path) -> None:
    for scratch in parent.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(scratch / _LOCK, os.O_RDWR)
        except OSError:
            continue  # of another user, or so new that it is not locked yet
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(scratch, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
