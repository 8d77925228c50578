"""A disk that loses power: from a record of what it was asked for to what may be found on it afterwards.

 recorder.c -> Record (operations in order) -> Disk.until(k): what is safe, what hangs -> CheckpointState chooses -> a folder

The model promises less than any real file system. Safe is what was synced: a file's bytes by fsync of the file, a folder's
names by fsync of that folder. Of a file's bytes since then any part may be there: none, all, the first operations with
the last one torn, or any of the 4 KiB blocks with zeros between. Of a folder's changes since then each name stands for
itself, so that changes are reordered between names and between folders; changes of one name keep their order, and a
rename happens to both names or to none. A name may stand for a file whose bytes never came.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

_HEADER = struct.Struct("<cIIQQ")
BLOCK = 4096
MARKS = "marks"
"""The file below the recorded folder into which the subject writes what it told the world."""


@dataclass(frozen=True, slots=True)
class Operation:
    """kind: a letter of recorder.c, or M for a mark. number: offset or size in bytes. site: of a sync, which it was."""

    kind: str
    path: str
    to: str = ""
    number: int = 0
    data: bytes = b""
    site: str = ""

    @property
    def mark(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.data)
        return found


def read_record(file: Path, root: Path) -> list[Operation]:
    """Paths are relative to `root`. A mark `{"site": .., "path": ..}` names the next sync of that path."""
    found: list[Operation] = []
    sites: dict[str, str] = {}
    for operation in _raw(file.read_bytes(), str(root)):
        if operation.path != MARKS:
            site = sites.pop(operation.path, "") if operation.kind == "F" else ""
            found.append(replace(operation, site=site))
        elif operation.kind == "W":
            for line in operation.data.splitlines():
                mark = json.loads(line)
                if "site" in mark:
                    sites[_relative(mark["path"], str(root))] = mark["site"]
                else:
                    found.append(Operation("M", "", data=line))
    return found


def _raw(data: bytes, root: str) -> Iterator[Operation]:
    at = 0
    while at < len(data):
        kind, first, second, number, size = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        path, to = data[at : at + first].decode(), data[at + first : at + first + second].decode()
        at += first + second
        yield Operation(kind.decode(), _relative(path, root), _relative(to, root), number, data[at : at + size])
        at += size


def _relative(path: str, root: str) -> str:
    return path[len(root) :].strip("/")


Write = tuple[int, bytes | None]
"""Offset and bytes; (size, None) is a truncation."""


@dataclass(slots=True, eq=False)
class File:
    safe: bytearray = field(default_factory=bytearray)
    hanging: list[Write] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Folder:
    """hanging: changes of names, each one a few (name, what it stands for then; None: nothing)."""

    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    now: dict[str, "File | Folder"] = field(default_factory=dict)
    hanging: list[dict[str, "File | Folder | None"]] = field(default_factory=list)

    def change(self, names: dict[str, "File | Folder | None"]) -> None:
        self.hanging.append(names)
        _apply(self.now, names)

    def sync(self) -> None:
        self.safe, self.hanging = dict(self.now), []


def _apply(entries: dict[str, "File | Folder"], names: dict[str, "File | Folder | None"]) -> None:
    for name, what in names.items():
        if what is None:
            entries.pop(name, None)
        else:
            entries[name] = what


class Disk:
    """After the first `count` operations; syncs whose site `ignored` names never happened. base: found there, all safe."""

    def __init__(self, record: Sequence[Operation], count: int, ignored: str = "", base: Path | None = None) -> None:
        self.root = _folder_of(base) if base is not None else Folder()
        for operation in record[:count]:
            if operation.kind != "M" and not (ignored and operation.site == ignored):
                self._perform(operation)

    def _perform(self, operation: Operation) -> None:
        path = PurePosixPath(operation.path)
        folder, name = self._folder(path.parent), path.name
        match operation.kind:
            case "D" if operation.path:
                folder.change({name: Folder()})
            case "C":
                folder.change({name: File()})
            case "U" | "X":
                folder.change({name: None})
            case "R":
                to = PurePosixPath(operation.to)
                assert to.parent == path.parent, f"a rename across folders: {operation.path} to {operation.to}"
                folder.change({name: None, to.name: folder.now[name]})
            case "W" | "T":
                file = folder.now[name]
                assert isinstance(file, File)
                file.hanging.append((operation.number, operation.data if operation.kind == "W" else None))
            case "F":
                self._sync(self.root if not operation.path else folder.now[name])

    def _sync(self, what: "File | Folder") -> None:
        if isinstance(what, Folder):
            what.sync()
        else:
            what.safe, what.hanging = _after(what.safe, what.hanging), []

    def _folder(self, path: PurePosixPath) -> Folder:
        found: File | Folder = self.root
        for part in path.parts:
            assert isinstance(found, Folder)
            found = found.now[part]
        assert isinstance(found, Folder)
        return found

    def write(self, target: Path, cut: "CheckpointState") -> None:
        """What this cut leaves, into an empty folder."""
        self._write(self.root, target, "", cut)

    def _write(self, folder: Folder, target: Path, path: str, cut: "CheckpointState") -> None:
        target.mkdir(parents=True, exist_ok=True)
        entries = dict(folder.safe)
        for group in _groups(folder.hanging):
            for names in group[: cut.names(path, len(group))]:
                _apply(entries, names)
        for name, what in entries.items():
            if isinstance(what, Folder):
                self._write(what, target / name, f"{path}/{name}".strip("/"), cut)
            else:
                (target / name).write_bytes(cut.data(what))


def _groups(changes: Sequence[dict[str, "File | Folder | None"]]) -> list[list[dict[str, "File | Folder | None"]]]:
    """Changes of the same names, or of names that renames tie together: these keep their order."""
    groups: list[tuple[set[str], list[dict[str, File | Folder | None]]]] = []
    for change in changes:
        touched = [group for group in groups if group[0] & change.keys()]
        merged = [c for c in changes if any(any(c is mine for mine in group[1]) for group in touched)] + [change]
        groups = [group for group in groups if group not in touched]
        groups.append(({name for c in merged for name in c}, merged))
    return [changes for _, changes in groups]


def _after(safe: bytes | bytearray, writes: Sequence[Write]) -> bytearray:
    data = bytearray(safe)
    for at, written in writes:
        if written is None:
            del data[at:]
            data.extend(bytes(at - len(data)))
        else:
            data.extend(bytes(max(0, at - len(data))))
            data[at : at + len(written)] = written
    return data


def _folder_of(path: Path) -> Folder:
    entries: dict[str, File | Folder] = {
        child.name: _folder_of(child) if child.is_dir() else File(bytearray(child.read_bytes()))
        for child in path.iterdir()
    }
    return Folder(entries, dict(entries))


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """One way in which power goes. names: folder and number of hanging changes -> how many of them happened. data: a
    file -> the bytes that are found."""

    names: Callable[[str, int], int]
    data: Callable[[File], bytes]


def _all_data(file: File) -> bytes:
    return bytes(_after(file.safe, file.hanging))


EVERYTHING = CheckpointState(lambda _, count: count, _all_data)
"""The death of the processes alone."""
NOTHING = CheckpointState(lambda _, count: 0, lambda file: bytes(file.safe))
"""What was not synced never came."""
NAMES_ALONE = CheckpointState(lambda _, count: count, lambda file: bytes(file.safe))
"""Renamed before the bytes came: files of length 0."""
DATA_ALONE = CheckpointState(lambda _, count: 0, _all_data)


def held_back(folder: str) -> CheckpointState:
    """Everything happened but the changes of names in one folder."""
    return CheckpointState(lambda path, count: 0 if path == folder else count, _all_data)


def random_cut(seed: int) -> CheckpointState:
    """One of the four above, one time in two; else each file and each name by itself."""
    draw = random.Random(seed)
    if draw.random() < 0.5:
        return draw.choice([EVERYTHING, NOTHING, NAMES_ALONE, DATA_ALONE])
    return CheckpointState(lambda _, count: draw.randint(0, count), lambda file: _some_data(file, draw))


def _some_data(file: File, draw: random.Random) -> bytes:
    kind = draw.choice(["none", "all", "torn", "blocks"])
    if kind == "none" or not file.hanging:
        return bytes(file.safe)
    if kind == "all":
        return _all_data(file)
    if kind == "torn":
        *first, (at, written) = file.hanging[: draw.randint(1, len(file.hanging))]
        torn = [(at, written[: draw.randint(0, len(written))])] if written is not None else []
        return bytes(_after(file.safe, [*first, *torn]))
    after, found = _all_data(file), bytearray()
    for start in range(0, len(after), BLOCK):
        block = after[start : start + BLOCK]
        before = bytes(file.safe[start : start + BLOCK])
        found += block if draw.random() < 0.5 else before[: len(block)].ljust(len(block), b"\0")
    return bytes(found)
