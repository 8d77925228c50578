"""What the code under test has synced: os.fsync, noted by what the file was at that moment."""

import os
from pathlib import Path


class SyncedFiles:
    """path in synced: the file or folder stands on disk as it is now, with nothing written to it since its last sync."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int, int]] = set()

    def fsync(self, descriptor: int) -> None:
        """In the place of os.fsync."""
        self._seen.add(_as_it_is(os.fstat(descriptor)))

    def __contains__(self, path: Path) -> bool:
        return _as_it_is(path.stat()) in self._seen

    def missing(self, folder: Path) -> list[str]:
        """Returns what is in a folder, itself included, and is not on disk as it is now."""
        return sorted(path.name for path in (folder, *folder.rglob("*")) if path not in self)


def _as_it_is(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
