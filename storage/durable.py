"""Writing so that a power cut keeps what was written: data first, then the name, then the folder that holds the name.

A file's bytes are safe after `sync`; its name (new, renamed, removed) only after `sync_directory` of the folder that holds
it, and so on upwards for new folders. Every writer of a run goes through here, and nothing else calls fsync.

 write_file / sync  ->  rename  ->  sync_directory          replace_file, place_folder and remove_folder are that order
"""

import errno
import os
import shutil
from pathlib import Path
from typing import IO, Any

_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})
"""What file systems say that keep directories safe by other means (some network and user-space ones)."""


def sync(file: IO[Any]) -> None:
    """What was written to an open file is on disk when this returns. Raises OSError where the disk refuses."""
    file.flush()
    os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """The same for a file that a library wrote and closed."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """The names in a folder are on disk when this returns: created, renamed, removed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Every file and folder below, that a library wrote, and the folder's own name."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """The folder and those above it that are missing, each one's name on disk (its own also where it was there: who made
    it may have been stopped before)."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):
        sync_directory(folder.parent)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Contents on disk; the name is once its folder was synced."""
    with path.open("wb") as file:
        file.write(data)
        sync(file)


def place_file(path: Path, data: bytes | memoryview) -> None:
    """Old or new for who looks; a power cut may leave neither, or a torn one, until `sync_file` and `sync_directory`."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def swap_unsynced(path: Path, text: str) -> None:
    """Old or new while the machine runs; after a power cut it may be torn or gone. For signs of life."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    temporary.replace(path)


def swap_file(path: Path, data: bytes | memoryview) -> None:
    """Old or new, never torn; which of the two a power cut leaves is open."""
    temporary = path.with_name(f".{path.name}.partial")
    write_file(temporary, data)
    temporary.replace(path)


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Old or new at every moment, new on disk when this returns."""
    swap_file(path, data)
    sync_directory(path.parent)


def place_folder(temporary: Path, folder: Path) -> None:
    """Give a folder whose files are on disk its name. Raises OSError where `folder` is there and not empty."""
    sync_directory(temporary)
    temporary.rename(folder)
    sync_directory(folder.parent)


def remove_folder(folder: Path) -> None:
    """Under its name it is whole or gone: half-removed it is hidden."""
    hide_folder(folder)
    sync_directory(folder.parent)
    sweep_hidden(folder.parent)


def hide_folder(folder: Path) -> None:
    """The first half of `remove_folder`, for who syncs the parent soon anyhow and sweeps then. What an earlier death left
    hidden under the same name makes room."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)


def sweep_hidden(parent: Path) -> None:
    """The second half, once `parent` is synced: everything hidden in it goes, also what an earlier death left."""
    for hidden in parent.glob(".*.removed"):
        shutil.rmtree(hidden, ignore_errors=True)


def whole_lines(data: bytes, *, before_gap: bool = False) -> list[bytes]:
    """The lines of an appended text file, without their ends. A stopped process leaves half a line at the end, a power
    cut also zeros where the last blocks never arrived: neither is a line. before_gap: those before the first zeros."""
    if before_gap:
        data = data.partition(b"\0")[0]
    return [line for line in data.split(b"\n")[:-1] if b"\0" not in line]
