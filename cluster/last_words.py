"""The stderr of the run's own process: in RUN/logs for later, and in the terminal at once.

The process writes into the file itself: nothing is lost and nothing blocks, whatever becomes of who shows it.
"""

import os
import shutil
from pathlib import Path

from cluster.process_log import CONTROLLER_ERRORS, FOLDER, new_attempt


class LastWords:
    """Of one life. descriptor: for the process to write to; None, what it has by itself, where there can be no file."""

    def __init__(self, run_path: Path) -> None:
        self._run_path = run_path
        folder = new_attempt(run_path)
        self._read: int | None = None
        self.descriptor: int | None = None
        if folder is not None:
            path = folder / CONTROLLER_ERRORS
            self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._read = os.open(path, os.O_RDONLY)

    def show(self) -> None:
        """What was written since the last time, on our own stderr."""
        while self._read is not None and (chunk := os.read(self._read, 1 << 16)):
            try:
                os.write(2, chunk)
            except OSError:
                return  # nobody is there to see it

    def close(self) -> None:
        """Shows the rest. Of a run that never began nothing is left."""
        self.show()
        for descriptor in (self._read, self.descriptor):
            if descriptor is not None:
                os.close(descriptor)
        if not (self._run_path / "manifest.json").exists():
            shutil.rmtree(self._run_path / FOLDER, ignore_errors=True)
