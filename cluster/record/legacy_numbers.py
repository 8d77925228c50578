"""Recognises unchanged data of a run whose commit read some numbers of its files another way.

    hashes of now differ from the manifest's -> the files again, as those commits read them -> its hashes, or the difference stays

The run goes on with numbers as they are read now (0.1 of a 32-bit column is 0.1), which is told and written into its events.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.record.events.resuming import NumbersReadOtherwise
from cluster.record.incidents import append_event
from contracts.errors import MemrError
from contracts.ports import Task
from tasks.config import TaskSettings
from tasks.file_task import file_task
from tasks.problem_files import Reading

OLDER = (Reading.WIDE, Reading.AS_PYTHON_PRINTS)


def known_reading(settings: TaskSettings, known: Mapping[str, str], hashes: Callable[[Task], Mapping[str, str]]) -> str:
    """Of the older ways to read a file's numbers the one whose hashes the run's manifest knows, in words; "" where none is.
    known: the manifest's; hashes: of a task."""
    if settings.kind != "file" or not known:
        return ""
    for reading in OLDER:
        try:
            found = hashes(file_task(settings, reading))
        except MemrError:  # it was no data to that commit
            continue
        if all(found[name] == value for name, value in known.items()):
            return reading.value
    return ""


def tell_reading(run_path: Path, reading: str) -> str:
    """The line for whoever resumes the run, which its events keep; "" where its data is read as it was."""
    if not reading:
        return ""
    told = (
        f"the data is what it was, and the commit that began the run read its numbers otherwise ({reading}): references and "
        "metadata of training from here on are as they stand in the file"
    )
    append_event(run_path, NumbersReadOtherwise(told).at(time.time()))
    return told
