"""Ctrl-C, SIGTERM and SIGUSR1 before a command has handlers of its own: one line and exit code 130, never a traceback.

__main__ (imports) -- `end_at_once` -->  cli.main -- `interruptible` -->  the supervisor's and the run's own handlers
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
INTERRUPTED = 130
LINE = "memr: interrupted before anything was begun; the same command starts over"


def end_at_once() -> None:
    """While modules are imported: there is nothing to clean up."""
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, f"{LINE}\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Inside, each of the signals is a KeyboardInterrupt, so that what was begun is cleaned up; yields those that came."""
    seen: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
