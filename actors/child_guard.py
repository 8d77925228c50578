"""No orphans: what this process starts dies with it, however it dies.

The process makes itself the leader of its own process group, which its children join, and starts a small guard outside
the group. The guard waits for the process to end, by any signal, and then ends what is left of the group and removes
the process's scratch folder.
"""

import os
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


def guard_children() -> Path:
    """Call once, before the first child is started; returns a scratch folder that lives as long as the process.

    Linux only; elsewhere there is a folder and no guard.
    """
    scratch = Path(tempfile.mkdtemp(prefix="memr-worker-"))
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
