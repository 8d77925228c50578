"""One process tree per run: an exclusive lock of the operating system on RUN/run.lock, taken before anything is written.

    memr train, memr resume -> lock_run -- held --> who holds it, at once
                                 | ours: the supervisor's, and its child's by inheritance, over every restart
                                 v
                               RUN/run.lock  {"pid", "host", "since_s"}: for people; the lock is what counts

The lock belongs to the open file, which supervisor and child share: it is free when both are gone, however they went, so
there is no stale one. An orphan that still writes its checkpoint keeps it.

flock: on NFS the Linux client turns it into a lock at the server, which holds between machines (not with the mount
options nolock and local_lock=flock, not on Lustre mounted without flock: there it holds on one machine, or not at all).
"""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import ConfigError

FILE = "run.lock"
LOOKS, LOOK_S = 3, 0.02
"""Who only looks (`held`) has the lock for a moment."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_run(run_path: Path) -> Iterator[int]:
    """The file descriptor that holds the lock, which makes the folder. Raises ConfigError where another process holds it."""
    descriptor = _taken(run_path)
    try:
        yield descriptor
    finally:
        _leave_nothing(run_path)
        os.close(descriptor)


def keep_lock(run_path: Path, descriptor: int) -> None:
    """The child's end: hold what was inherited, and hand it on to nobody. Raises ConfigError for another file's."""
    os.set_inheritable(descriptor, False)
    if not _is_ours(run_path, descriptor):
        raise ConfigError(f"descriptor {descriptor} is not the lock of {run_path}: start the run with `memr train`")


def held(run_path: Path) -> bool:
    """Whether some process works on the run, as far as this machine or a shared file system can tell."""
    try:
        descriptor = os.open(run_path / FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _taken(run_path: Path) -> int:
    try:
        while True:
            run_path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(run_path / FILE, os.O_RDWR | os.O_CREAT, 0o644)
            if not _soon_locked(descriptor):
                os.close(descriptor)
                raise ConfigError(_refusal(run_path))
            if _is_ours(run_path, descriptor):
                break
            os.close(descriptor)  # somebody removed the folder meanwhile
    except OSError as error:
        raise ConfigError(
            f"cannot write the run directory {run_path}: {error}. Set run.directory to a writable place"
        ) from error
    holder = {"pid": os.getpid(), "host": platform.node(), "since_s": time.time()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return descriptor


def _soon_locked(descriptor: int) -> bool:
    for _ in range(LOOKS):
        if _locked(descriptor, fcntl.LOCK_EX):
            return True
        time.sleep(LOOK_S)
    return False


def _locked(descriptor: int, how: int) -> bool:
    """A file system without locks gives one to everybody: process.json is all there is then."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_ours(run_path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(run_path / FILE))
    except OSError:
        return False


def _refusal(run_path: Path) -> str:
    holder = _holder(run_path)
    who = "another process"
    if holder:
        minutes = max(0.0, time.time() - float(holder["since_s"])) / 60
        who = f"process {holder['pid']} on {holder['host']}, for {minutes:.1f} min"
    return (
        f"{run_path} is running: {who}. `memr status {run_path}` shows it; for another run choose another name with "
        "--set run.name=NAME"
    )


def _holder(run_path: Path) -> dict[str, Any]:
    """What the holder wrote; it may be about to."""
    for _ in range(20):
        try:
            found = json.loads((run_path / FILE).read_text())
            return found if {"pid", "host", "since_s"} <= found.keys() else {}
        except (OSError, ValueError, AttributeError):
            time.sleep(0.01)
    return {}


def _leave_nothing(run_path: Path) -> None:
    """Of a run that never began: no folder with a lock alone."""
    try:
        if os.listdir(run_path) == [FILE]:
            os.unlink(run_path / FILE)
            os.rmdir(run_path)
    except OSError:
        return
