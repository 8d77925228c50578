"""Defines the files of a checkpoint: everything a run is at one step, in one folder, written whole or not at all.

    checkpoints/step-000120/  learner/  memory/snapshot-*/  ledger.parquet  buffered.parquet  sampled.parquet
                              [untold.parquet]  checkpoint.json (last: step, place in the log, SHA-256 of every other file)

Under a temporary name first, every file and folder synced, the log too; what resume reads is read back; then one rename. A
folder that does not match its checkpoint.json, or whose parts tell of different moments (`checkpoint_parts.py`), is none,
and resume walks back to the newest that is one: the log is whole, so an older one only costs time. Old ones go only after a
newer one was read back, and two always stay. A step that has a whole checkpoint keeps it: the log holds what came since.
"""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field

from cluster.handles import Services
from cluster.record.checkpoint_parts import check_agree, lease_ids, read_through
from cluster.record.history import RecoveredState
from cluster.record.ledger import LedgerSnapshot
from cluster.record.ledger_table import LEDGER_SCHEMA, ledger_from_table, ledger_to_table
from cluster.record.run_log import BEGINNING, Position
from cluster.record.sampled_counts import StoredCounts
from cluster.record.verified import Verified
from contracts.errors import DataError
from contracts.rollout import RolloutGroup, ScoredGroup
from storage.arrow import groups_to_parquet, read_groups
from storage.bounded_json import Count, Stored, read_fields
from storage.bounded_tables import read_parquet
from storage.durable import place_folder, remove_folder, sync_file, write_file

MANIFEST = "checkpoint.json"
UNANSWERED = "untold.parquet"
"""Only where there are such groups: runs of 57c9e8c know no such file."""
LEAST_KEPT = 2


class Manifest(Stored):
    """checkpoint.json. log: segment and offset. sha256: of every other file, by its path below the checkpoint."""

    step: Count
    log: tuple[Count, Count]
    sha256: dict[str, str]
    counts: StoredCounts = Field(default_factory=StoredCounts)


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """The controller's state at one moment: what is before `position` in the log. unanswered: groups that went on without
    bonus, being late, and that memory has not answered for. counts: of rollouts since the last line of metrics."""

    step: int
    position: Position
    books: LedgerSnapshot
    buffered: tuple[ScoredGroup, ...]
    sampled: tuple[RolloutGroup, ...]
    unanswered: tuple[RolloutGroup, ...] = ()
    counts: StoredCounts = field(default_factory=StoredCounts)


async def save_checkpoint(
    run_path: Path,
    cut: CheckpointState,
    services: Services,
    keep: int,
    *,
    sync: Callable[[], Awaitable[None]],
    verified: Verified,
) -> Path:
    """Returns the folder. Learner and memory write side by side. What memory was told after the cut may be in its
    snapshot too: its version tells, and resume does not tell it again. sync: puts log and metrics on disk; it is called
    after memory has saved, because the log must hold all that the snapshot holds, and before the checkpoint has its name.

    Raises DataError for a checkpoint that resume would pass over; it stays under its temporary name."""
    folder = run_path / "checkpoints" / f"step-{cut.step:06d}"
    if await asyncio.to_thread(verified.is_good, folder, _is_good):
        await sync()
        return folder
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    saves = [services.learner.save(temporary / "learner")]
    if services.memory is not None:
        saves.append(_save_memory(services, temporary))
    await asyncio.gather(*saves)
    await asyncio.to_thread(_write, temporary, cut)
    await sync()
    try:
        await asyncio.to_thread(read_back, temporary)
    except DataError as error:
        raise DataError(
            f"the checkpoint of step {cut.step} cannot be read back: {error}. The one before it stays the newest"
        ) from error
    await asyncio.to_thread(_name, temporary, folder)
    await asyncio.to_thread(verified.add, folder)
    await asyncio.to_thread(prune_checkpoints, run_path, keep, verified)
    return folder


async def _save_memory(services: Services, directory: Path) -> None:
    assert services.memory is not None
    await services.memory.save(directory / "memory")


def _write(folder: Path, cut: CheckpointState) -> None:
    pq.write_table(ledger_to_table(cut.books), folder / "ledger.parquet", compression="zstd")
    sync_file(folder / "ledger.parquet")
    sampled = [ScoredGroup.without_bonus(group) for group in cut.sampled]
    write_file(folder / "buffered.parquet", groups_to_parquet(cut.buffered))
    write_file(folder / "sampled.parquet", groups_to_parquet(sampled))
    if cut.unanswered:
        unanswered = [ScoredGroup.without_bonus(group, late=True) for group in cut.unanswered]
        write_file(folder / UNANSWERED, groups_to_parquet(unanswered))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "step": cut.step,
        "log": [cut.position.segment, cut.position.offset],
        "sha256": {str(path.relative_to(folder)): _sha256(path) for path in files},
        "counts": cut.counts.model_dump(),
    }
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def _name(temporary: Path, folder: Path) -> None:
    """A damaged checkpoint of the same step makes room."""
    if folder.exists():
        remove_folder(folder)
    place_folder(temporary, folder)


def newest_checkpoint(run_path: Path) -> Path | None:
    """By name alone, for those who only look."""
    folders = _folders(run_path)
    return folders[-1] if folders else None


def newest_verified(run_path: Path) -> Path | None:
    """The newest that resume would take."""
    return next((folder for folder in reversed(_folders(run_path)) if _is_good(folder)), None)


def read_back(folder: Path) -> None:
    """Everything that resume reads, without keeping it: groups a few at a time, of tensors the hash and the header.
    Raises DataError where resume would pass the folder over."""
    _checked(folder)
    for path in {*folder.glob("*.parquet")} - {folder / "ledger.parquet"}:
        read_through(path)


def _checked(folder: Path) -> tuple[Manifest, LedgerSnapshot]:
    """A folder that is what it says, and whose parts tell of one moment. Raises DataError otherwise."""
    manifest = verify(folder)
    try:
        books = ledger_from_table(read_parquet(folder / "ledger.parquet", LEDGER_SCHEMA, nullable=()))
    except ValueError as error:
        raise DataError(f"{folder / 'ledger.parquet'}: {error}") from error
    buffered, sampled = (lease_ids(folder / name) for name in ("buffered.parquet", "sampled.parquet"))
    check_agree(folder, manifest.step, manifest.sha256, books, buffered, sampled)
    return manifest, books


def read_checkpoint(run_path: Path) -> tuple[RecoveredState, Position]:
    """The newest checkpoint that matches its manifest; the beginning where there is none. `RecoveredState.notes` says what was
    passed over."""
    notes: list[str] = []
    for folder in reversed(_folders(run_path)):
        try:
            past, position = _read(folder)
        except DataError as error:
            notes.append(f"passed over {folder.name}: {error}")
            continue
        past.notes = notes
        return past, position
    return RecoveredState(notes=notes), BEGINNING


def log_floor(run_path: Path) -> Position:
    """The furthest place in the log that a checkpoint points to; one whose checkpoint.json cannot be read points nowhere."""
    floor = BEGINNING
    for folder in _folders(run_path):
        with suppress(DataError):
            floor = max(floor, Position(*read_fields(folder / MANIFEST, Manifest).log))
    return floor


def verify(folder: Path) -> Manifest:
    """checkpoint.json of a folder that is what it says, no file more or less. Raises DataError otherwise."""
    manifest = read_fields(folder / MANIFEST, Manifest)
    present = _files(folder)
    for name in sorted(manifest.sha256.keys() ^ present.keys()):
        if name in present:
            raise DataError(f"{folder / name} is not named in {MANIFEST}: take it away, or use an older checkpoint")
        raise DataError(
            f"{folder / MANIFEST} names {name[:200]!r}, which is missing from the checkpoint or outside the checkpoint"
        )
    for name, path in present.items():
        if _sha256(path) != manifest.sha256[name]:
            raise DataError(f"{path} does not match {MANIFEST}")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    """What stands in a checkpoint, by path below it, hidden files aside. Raises DataError for links, pipes and devices."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"{path} is a link or no regular file: a checkpoint holds none; put the file itself there")
        if path.is_file() and not path.name.startswith(".") and path != folder / MANIFEST:
            found[path.relative_to(folder).as_posix()] = path
    return found


def _read(folder: Path) -> tuple[RecoveredState, Position]:
    manifest, books = _checked(folder)
    snapshots = sorted((folder / "memory").glob("snapshot-*"))
    unanswered = read_groups(folder / UNANSWERED) if (folder / UNANSWERED).exists() else []
    past = RecoveredState(
        step=manifest.step,
        books=books,
        buffered=_by_lease(read_groups(folder / "buffered.parquet")),
        sampled={lease: scored.group for lease, scored in _by_lease(read_groups(folder / "sampled.parquet")).items()},
        unanswered={lease: scored.group for lease, scored in _by_lease(unanswered).items()},
        counts=manifest.counts.counts(),
        checkpoint=folder,
        memory_snapshot=snapshots[-1] if snapshots else None,
    )
    return past, Position(*manifest.log)


def _by_lease(groups: Iterable[ScoredGroup]) -> dict[int, ScoredGroup]:
    return {scored.group.lease_id: scored for scored in groups}


def prune_checkpoints(run_path: Path, keep: int, verified: Verified | None = None) -> None:
    """Delete all but the newest `keep` that resume would take; what it would pass over is left for people to see.
    verified: those that need not be hashed again."""
    verified = verified or Verified()
    good = [folder for folder in _folders(run_path) if verified.is_good(folder, _is_good)]
    for folder in good[: -max(LEAST_KEPT, keep)]:
        remove_folder(folder)
        verified.forget(folder)


def _is_good(folder: Path) -> bool:
    try:
        _checked(folder)
    except DataError:
        return False
    return True


def _folders(run_path: Path) -> Sequence[Path]:
    return sorted(p for p in (run_path / "checkpoints").glob("step-*") if (p / MANIFEST).exists())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
