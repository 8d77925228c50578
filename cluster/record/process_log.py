"""RUN/logs/<attempt>/<process>.log: what the processes of a run print, users' code and libraries included.

    supervisor: new_attempt -> logs/002/controller.err, the run's own stderr, shown in the terminal too
    the run's own process   -> logs/002/controller.log, what the console told, line by line, and Python's logging
    learner, memory, workers -> logs/002/<name>.log: begin_log points stdout and stderr there, children inherit both

An attempt is one life of the run's own process; a part that is brought back within it goes on in its file. On another node
that does not see the run directory nothing is pointed anywhere: Ray keeps those files (docs/cluster.md).
"""

import logging
import os
import re
import sys
from pathlib import Path

FOLDER = "logs"
CONTROLLER_LOG, CONTROLLER_ERRORS = "controller.log", "controller.err"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TAIL_BYTES = 64 * 1024
_ERROR = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception)\b: .+")


def new_attempt(run_path: Path) -> Path | None:
    """The folder of a life that begins; None where it cannot be made: logs are no reason not to run."""
    numbers = [int(path.name) for path in (run_path / FOLDER).glob("*") if path.name.isdecimal()]
    folder = run_path / FOLDER / f"{max(numbers, default=0) + 1:03d}"
    try:
        folder.mkdir(parents=True)
    except OSError:
        return None
    return folder


def newest_attempt(run_path: Path) -> Path | None:
    """Returns the log folder of the newest attempt of a run; None before the first."""
    folders = [path for path in (run_path / FOLDER).glob("*") if path.name.isdecimal()]
    return max(folders, key=lambda path: int(path.name), default=None)


def log_to_file(path: Path, level: str) -> None:
    """Python's logging of this process goes to the file, and no more to the terminal, which shows the run."""
    try:
        logging.basicConfig(filename=path, level=level.upper(), format=FORMAT)
    except OSError:
        return


def begin_log(_actor: object, path: str, level: str) -> None:
    """Called in a Ray actor. Whatever was printed before is in Ray's own file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        return  # on a node that does not see the run directory
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(descriptor, number)
    os.close(descriptor)
    logging.basicConfig(level=level.upper(), format=FORMAT)


def last_error(path: Path) -> str:
    """The last line of a log that names an error and says something of it; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = [match.group() for line in lines if (match := _ERROR.search(line))]
    found = (error for error in reversed(told) if "root cause above" not in error)
    return next(found, "")[:500]
