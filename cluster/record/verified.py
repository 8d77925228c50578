"""Which checkpoints this process has read through, so that their hashes, which cost as much as memory is large, are taken once.

A verdict holds while the folder's files have the names, sizes and times that they had. That is enough to choose which old
checkpoints go; whoever reads one (resume, roll-back) hashes it again.
"""

from collections.abc import Callable
from pathlib import Path

_Stamp = frozenset[tuple[str, int, int]]


class Verified:
    """Of one run, owned by its controller."""

    def __init__(self) -> None:
        self._verdicts: dict[Path, tuple[_Stamp, bool]] = {}

    def add(self, folder: Path) -> None:
        """It was read through, perhaps under another name."""
        self._verdicts[folder] = (_stamp(folder), True)

    def is_good(self, folder: Path, look: Callable[[Path], bool]) -> bool:
        """What `look` says, or said when the folder was as it is now; False where there is none."""
        stamp = _stamp(folder)
        if not stamp:
            return False
        known = self._verdicts.get(folder)
        if known is None or known[0] != stamp:
            known = self._verdicts[folder] = (stamp, look(folder))
        return known[1]

    def forget(self, folder: Path) -> None:
        self._verdicts.pop(folder, None)


def _stamp(folder: Path) -> _Stamp:
    """Name, size in bytes and time of change in ns of everything below it; empty where it is not there."""
    found = [(path.relative_to(folder).as_posix(), path.lstat()) for path in folder.rglob("*")]
    return frozenset((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)
