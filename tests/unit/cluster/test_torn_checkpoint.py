"""A checkpoint is whole or it is none: every file of the newest, cut, emptied, changed or gone, means the one before it."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.record.checkpoint import newest_verified, read_checkpoint
from tests.harness import Run, make_config
from tests.synced import SyncedFiles


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    config = make_config(folder, updates=4, cluster={"checkpoint_every_updates": 2})

    async def life() -> Path:
        run = Run(config)
        await run.run()
        return run.path

    return asyncio.run(life())


async def test_a_checkpoint_that_has_its_name_is_on_disk_whole(tmp_path: Path, synced_files: SyncedFiles) -> None:
    """What it holds of the learner and of memory is synced by these, which are fakes here."""
    run = Run(make_config(tmp_path, updates=2, cluster={"checkpoint_every_updates": 2}))
    await run.run()
    folder = run.path / "checkpoints" / "step-000002"
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert files == {"checkpoint.json", "ledger.parquet", "buffered.parquet", "sampled.parquet"}
    assert not {folder.name, *files} & {*synced_files.missing(folder)}
    assert folder.parent in synced_files, "and its name"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, emptied, changed, Path.unlink], ids=["cut", "emptied", "changed", "gone"])
def test_every_damaged_file_means_the_checkpoint_before(
    finished: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    files = [p.relative_to(finished) for p in (finished / "checkpoints" / "step-000004").rglob("*") if p.is_file()]
    assert len(files) >= 5
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(finished, copy)
        damage(copy / file)
        past, _ = read_checkpoint(copy)
        if file.name == "checkpoint.json" and damage is Path.unlink:  # then it is no checkpoint at all
            assert past.notes == []
        else:
            assert past.notes, file
            assert past.notes[0].startswith("passed over step-000004"), file
        assert past.step == 2, file
        newest = newest_verified(copy)
        assert newest is not None
        assert newest.name == "step-000002"


def test_what_a_crash_left_under_its_temporary_name_is_nothing(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r"
    shutil.copytree(finished, copy)
    (copy / "checkpoints" / "step-000004").rename(copy / "checkpoints" / ".step-000004.partial")
    assert read_checkpoint(copy)[0].step == 2


def test_with_no_whole_checkpoint_a_run_begins_at_its_log(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r"
    shutil.copytree(finished, copy)
    for folder in (copy / "checkpoints").iterdir():
        emptied(folder / "ledger.parquet")
    past, position = read_checkpoint(copy)
    assert (past.step, position.offset, len(past.notes)) == (0, 0, 2)
