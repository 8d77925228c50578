"""A text file that others append to, read as it grows: each look gives the lines that came since the one before.

    appended          -> the new whole lines; half a line at the end waits for its rest
    cut or replaced   -> `anew`: all lines there are, and those of earlier looks are void (a resume swaps a file that a crash
                         left torn, then writes on from the first line that is missing)
    not there yet     -> no lines

Bytes of a whole line are read once. What counts as a line is `storage.durable.whole_lines`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from contracts.errors import DataError
from storage.bounded_json import refuse_unbounded
from storage.durable import whole_lines

MAX_LINES_BYTES = 2**30
_MARK_BYTES = 256


@dataclass(frozen=True, slots=True)
class Appended:
    """What one look found. lines: without their ends. anew: the lines of earlier looks are not in the file any more."""

    lines: list[bytes]
    anew: bool = False


class Tail:
    """Remembers how far one file was read. before_gap: nothing behind the first zeros of a power cut counts."""

    def __init__(self, path: Path, *, before_gap: bool = False, max_bytes: int = MAX_LINES_BYTES) -> None:
        self._path, self._before_gap, self._max_bytes = path, before_gap, max_bytes
        self._inode: tuple[int, int] | None = None
        self._offset = 0
        self._mark = b""
        """The last bytes that were read: a new file may have got the inode number of the old one."""

    def look(self) -> Appended:
        """Raises DataError for what is no regular file, is larger than max_bytes, or cannot be read."""
        try:
            refuse_unbounded(self._path, self._path.stat(), self._max_bytes)  # before it is opened: a pipe would wait
            with self._path.open("rb") as file:
                return self._read(file)
        except FileNotFoundError:
            return Appended([], anew=self._forget())
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path} cannot be read: {error}") from error

    def _read(self, file: BinaryIO) -> Appended:
        found = os.fstat(file.fileno())
        file.seek(self._offset - len(self._mark))
        reads_on = self._inode == (found.st_dev, found.st_ino) and file.read(len(self._mark)) == self._mark
        anew = not reads_on and self._forget()
        file.seek(self._offset)
        self._inode = found.st_dev, found.st_ino
        return Appended(self._take(file.read(found.st_size - self._offset)), anew)

    def _take(self, data: bytes) -> list[bytes]:
        usable = data.partition(b"\0")[0] if self._before_gap else data
        whole = usable[: usable.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._mark = (self._mark + whole)[-_MARK_BYTES:]
        return whole_lines(whole)

    def _forget(self) -> bool:
        """Begins at the beginning again; whether lines were read before."""
        had_lines = self._offset > 0
        self._inode, self._offset, self._mark = None, 0, b""
        return had_lines
