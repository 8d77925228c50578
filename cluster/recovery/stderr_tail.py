"""The stderr of the run's own process: in RUN/logs for later, and in the terminal at once.

The process writes into the file itself: nothing is lost and nothing blocks, whatever becomes of who shows it.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from cluster.config.run_folder import is_run
from cluster.record.process_log import CONTROLLER_ERRORS, new_attempt


class StderrTail:
    """Of one life. descriptor: for the process to write to; None, what it has by itself, where there can be no file."""

    def __init__(self, run_path: Path) -> None:
        self._run_path = run_path
        self._folder = new_attempt(run_path)
        self.descriptor, self._read = (
            (None, None) if self._folder is None else _opened(self._folder / CONTROLLER_ERRORS)
        )

    def show(self) -> None:
        """What was written since the last time, on our own stderr."""
        with suppress(OSError):  # nobody is there to see it, or the file cannot be read
            while self._read is not None and (chunk := os.read(self._read, 1 << 16)):
                os.write(2, chunk)

    def close(self) -> None:
        """Shows the rest. Of a run that never began this life leaves nothing; what else lies in the folder is not ours."""
        self.show()
        for descriptor in (self._read, self.descriptor):
            if descriptor is not None:
                os.close(descriptor)
        if self._folder is not None and not is_run(self._run_path):
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # it holds something else
                self._folder.parent.rmdir()


def _opened(path: Path) -> tuple[int | None, int | None]:
    """To write to and to read from. None, None where one of them cannot be had: logs are no reason not to run."""
    try:
        writer = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return None, None
    try:
        return writer, os.open(path, os.O_RDONLY)
    except OSError:
        os.close(writer)
        return None, None
