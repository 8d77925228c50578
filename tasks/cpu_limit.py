"""A limit on the processor time of one piece of Python, in a process whose main thread runs it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class OutOfTimeError(BaseException):
    """No Exception, so that a library's `except Exception` does not swallow it."""


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in the body once it has computed for so long. Does nothing outside the main thread, where
    signals do not arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _out_of_time)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _out_of_time(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001  what a handler is called with
    raise OutOfTimeError
