"""The durable log of a run: every rollout and every decision, in order, so that a crash costs no rollout.

    RUN/log/000000.log 000001.log ...   frames: length | CRC-32 of kind and payload | kind | payload

Append-only. A frame is written whole or cut off at the next opening: a torn tail is what a crash leaves, and is counted.
Payloads are JSON, or Arrow IPC streams for rollouts. Nothing of this is ever executed.

Durable against the death of our processes with every frame, against the death of the machine with every `sync`.
Whoever stores a position (a checkpoint) syncs first. A log that ends before a stored position, which a disk that lost what
it had confirmed leaves behind, goes on in a new segment: no frame ever stands below a position and is read as after it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.errors import DataError
from storage.durable import sync, sync_directory

_HEADER = struct.Struct("<IIB")
_ZEROS = bytes(_HEADER.size)
"""Their checksum is right."""
MAX_FRAME_BYTES = 2**30
SEGMENT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where the next frame begins."""

    segment: int
    offset: int


BEGINNING = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """kind: a small number that the writer chose. end: where the next frame begins."""

    kind: int
    payload: bytes
    end: Position


class RunLog:
    """The writing end. Opening cuts a torn tail; `torn_bytes` says how much that was.

    floor: the furthest position that anybody stored; nothing before it is looked at, or cut. `ended_at` is where a log that
    is shorter than this ended, else None.
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES, floor: Position = BEGINNING) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self.torn_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        segments = _segments(directory)
        self._open(segments[-1] if segments else 0, floor)
        self.ended_at = self.position if self.position < floor else None
        if self.ended_at is not None:
            self._next_segment(max(self._segment, floor.segment) + 1)

    @property
    def position(self) -> Position:
        return Position(self._segment, self._offset)

    def append(self, kind: int, payload: bytes) -> None:
        """Raises ValueError for a frame that no reader would take: too long, or all zeros."""
        if not kind and not payload:
            raise ValueError("an empty log frame of kind 0 is all zeros: a reader takes it for what a power cut left")
        if len(payload) > MAX_FRAME_BYTES:
            raise ValueError(f"a log frame of {len(payload)} bytes; the largest is {MAX_FRAME_BYTES}")
        if self._offset >= self._segment_bytes:
            self._next_segment(self._segment + 1)
        frame = _HEADER.pack(len(payload), zlib.crc32(payload, kind), kind) + payload
        self._file.write(frame)
        self._file.flush()
        self._offset += len(frame)

    def sync(self) -> None:
        """Every frame so far is safe from a power cut."""
        if not self._file.closed:
            sync(self._file)

    def close(self) -> None:
        """Not synced: what ends a run in order has made a checkpoint, which was."""
        self._file.close()

    def _next_segment(self, segment: int) -> None:
        """What stands before a later segment is whole, and on disk."""
        self.sync()
        self.close()
        self._open(segment)

    def _open(self, segment: int, floor: Position = BEGINNING) -> None:
        path = _path(self._directory, segment)
        self._segment, self._offset = segment, _whole_bytes(path, segment, floor) if path.exists() else 0
        self._file = path.open("ab")
        self.torn_bytes += self._file.tell() - self._offset
        self._file.truncate(self._offset)
        sync_directory(self._directory)


def read_log(directory: Path, start: Position = BEGINNING, floor: Position = BEGINNING) -> Iterator[Frame]:
    """Every whole frame from `start` on; where the segment of `start` ends before it, from the next segment on. floor: the
    furthest position that anybody stored. Raises DataError for damage before the floor or before a later segment, which no
    crash leaves behind, and for a `start` inside a frame."""
    segments = [segment for segment in _segments(directory) if segment >= start.segment]
    for segment in segments:
        path = _path(directory, segment)
        offset = start.offset if segment == start.segment else 0
        try:
            for frame in _frames(path, segment, offset):
                yield frame
                offset = frame.end.offset
            damaged = offset < path.stat().st_size
            if damaged and Position(segment, offset) == start and not _is_boundary(path, offset):
                raise DataError(
                    f"{path}: byte {offset}, where a checkpoint says that the log goes on, is inside a frame. A power cut "
                    "shortened the log and memr up to commit 57c9e8c wrote on below that place, so what came after the "
                    "checkpoint is lost for every version of memr: restore the log from a copy, or start the run again "
                    "under another name"
                )
        except OSError as error:
            raise DataError(f"{path} cannot be read at byte {offset}: {error}") from error
        if damaged and (segment != segments[-1] or (_reaches(path, segment, floor) and offset < floor.offset)):
            raise DataError(
                f"{path} is damaged at byte {offset}, and what came later is whole: restore it from a copy, or start the run "
                "again under another name"
            )


def _frames(path: Path, segment: int, offset: int) -> Iterator[Frame]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(offset)
        while offset + _HEADER.size <= size:
            header = file.read(_HEADER.size)
            length, checksum, kind = _HEADER.unpack(header)
            if header == _ZEROS or length > min(MAX_FRAME_BYTES, size - offset - _HEADER.size):
                return
            payload = file.read(length)
            if len(payload) != length or zlib.crc32(payload, kind) != checksum:
                return
            offset += _HEADER.size + length
            yield Frame(kind, payload, Position(segment, offset))


def _is_boundary(path: Path, offset: int) -> bool:
    """Whether a whole frame ends at `offset`, or the segment begins there."""
    return offset == 0 or any(frame.end.offset == offset for frame in _frames(path, 0, 0))


def _whole_bytes(path: Path, segment: int, floor: Position) -> int:
    offset = floor.offset if _reaches(path, segment, floor) else 0
    for frame in _frames(path, segment, offset):
        offset = frame.end.offset
    return offset


def _reaches(path: Path, segment: int, floor: Position) -> bool:
    """Whether the segment holds everything up to a floor that lies in it."""
    return segment == floor.segment and path.stat().st_size >= floor.offset


def _segments(directory: Path) -> list[int]:
    """Regular files under the names that `_path` gives; a device or a pipe would never end."""
    named = [path for path in directory.glob("*.log") if path.stem.isascii() and path.stem.isdecimal()]
    return sorted(int(p.stem) for p in named if p == _path(directory, int(p.stem)) and p.is_file())


def _path(directory: Path, segment: int) -> Path:
    return directory / f"{segment:06d}.log"
