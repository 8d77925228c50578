"""The run's own process, below its supervisor: what it does at its edges.

Signals are seen in every phase: while models load they end the process at once (nothing is lost, the run directory is
whole), later they ask the controller for a checkpoint and the end. A process whose supervisor died asks itself.
"""

import contextlib
import errno
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil
from ray.exceptions import RayError, RayTaskError

from cluster.config.run_folder import is_run
from cluster.record.events.event import Event
from cluster.record.events.failures import Crashed, PartLost, RayFailed, Stopped, SupervisorDied
from cluster.record.incidents import append_event, headlines, write_incident
from cluster.recovery.ending import FAILED, INTERRUPTED, MAY_RESTART
from contracts.errors import ActorLostError, MemrError, RunStopped
from loading.load_errors import missing_package

PARENT_POLL_S = 1.0


def supervised(life: Callable[[], int], run_path: Path, stop_s: float, supervisor: int) -> int:
    """Run `life` and turn what ends it into an exit code. MemrErrors that no restart cures pass through.

    stop_s: how long an orphan may take to write its checkpoint. supervisor: process number of who started this one, as it
    said itself: who the parent is now may be another already.
    """
    faulthandler.enable()
    told_before = len(headlines(run_path))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _interrupt)
    threading.Thread(target=end_when_orphaned, args=(supervisor, run_path, stop_s), daemon=True).start()
    try:
        return life()
    except KeyboardInterrupt:
        return INTERRUPTED
    except ActorLostError as error:
        if str(error) not in headlines(run_path)[told_before:]:  # told where it was found, before Ray was ended
            _leave(run_path, PartLost(str(error)))
        return MAY_RESTART
    except MemrError:
        raise
    except ImportError as error:
        raise missing_package(error) from error
    except RayError as error:
        lines = str(error).strip().splitlines()  # of a remote traceback the last one is the error
        _leave(run_path, RayFailed(f"Ray failed: {lines[-1 if isinstance(error, RayTaskError) else 0]}"))
        return MAY_RESTART
    except Exception as error:  # noqa: BLE001  the edge of the process: `_crashed` writes it down
        return _crashed(run_path, error)


def _crashed(run_path: Path, error: Exception) -> int:
    """Exit code of a process that an error ended which nobody foresaw; raises where a sentence says what to do."""
    if _disk_is_full(error):
        told = (
            f"the disk of {run_path} is full: {error}. Make room, then `memr resume {run_path}`: what was cut off while "
            "it was written is dropped, everything before it is kept"
        )
        with contextlib.suppress(OSError):  # a line may still find room
            _leave(run_path, Stopped(told))
        raise RunStopped(told) from error
    if isinstance(error, OSError) and not is_run(run_path):
        raise error  # a path of the configuration's: a sentence says it, and no trace
    trace = "".join(traceback.format_exception(error))
    _leave(run_path, Crashed(f"{type(error).__name__}: {error}", trace))
    sys.stderr.write(trace)
    return MAY_RESTART if is_run(run_path) else FAILED  # before there is one, the next try would do the same again


def _disk_is_full(error: Exception) -> bool:
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in str(error)


_asked = threading.Event()
_orphaned = threading.Event()


def ended_by() -> str:
    """What asked the run to end where that was nobody; "" for a request."""
    return SupervisorDied.written_as if _orphaned.is_set() else ""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt


def ignore_signals() -> None:
    """How the run ended is known and only has to be written down: a signal now must not turn it into another end. The
    supervisor still ends by force what takes too long."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def asked_to_end() -> bool:
    """A signal came while the run started. Libraries swallow a KeyboardInterrupt that hits their clean-up code."""
    return _asked.is_set()


def _leave(run_path: Path, event: Event) -> None:
    if is_run(run_path):
        now = event.at(time.time())
        write_incident(run_path, now)
        append_event(run_path, now)


def end_when_orphaned(parent: int, run_path: Path, stop_s: float) -> None:
    """No run without somebody who watches it: it would hold its GPUs forever. Its files say that nobody asked for the end."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    _orphaned.set()
    died = SupervisorDied(
        f"the supervisor of the run (process {parent}, `memr train` or `memr resume`) died, killed from outside or for want of "
        f"memory: the run writes a checkpoint and ends; `memr resume {run_path}` goes on"
    )
    _leave(run_path, died)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(stop_s)
    for process in [*psutil.Process().children(recursive=True), psutil.Process()]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
