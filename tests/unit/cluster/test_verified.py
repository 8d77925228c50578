"""What a checkpoint costs does not grow with the checkpoints before it: each is hashed once by the process that wrote it."""

from collections import Counter
from pathlib import Path

import pytest

from cluster.record import checkpoint
from cluster.record.checkpoint import newest_verified, prune_checkpoints, read_checkpoint
from cluster.record.verified import Verified
from tests.harness import Run, make_config


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each checkpoint was read through and hashed."""
    counts: Counter[str] = Counter()
    really = checkpoint.verify

    def verify(folder: Path) -> checkpoint.Manifest:
        counts[folder.name.strip(".").removesuffix(".partial")] += 1
        return really(folder)

    monkeypatch.setattr(checkpoint, "verify", verify)
    return counts


async def lived(path: Path, updates: int = 8) -> Run:
    cluster = {"checkpoint_every_updates": 1, "checkpoints_kept": 4}
    run = Run(make_config(path, updates=updates, cluster=cluster))
    await run.run()
    await run.controller.checkpoint()  # of a step that has one
    return run


async def test_each_checkpoint_is_hashed_once_by_the_process_that_wrote_it(tmp_path: Path, looks: Counter[str]) -> None:
    run = await lived(tmp_path)
    run.close()
    assert looks == {f"step-00000{step}": 1 for step in range(1, 9)}
    assert [p.name for p in sorted((run.path / "checkpoints").iterdir())] == [f"step-00000{i}" for i in (5, 6, 7, 8)]


async def test_those_of_an_earlier_process_are_hashed_once_more(tmp_path: Path, looks: Counter[str]) -> None:
    (await lived(tmp_path)).close()
    run = Run(make_config(tmp_path, updates=10, cluster={"checkpoint_every_updates": 1, "checkpoints_kept": 4}))
    looks.clear()
    await run.run()
    run.close()
    assert looks == {f"step-{step:06d}": 1 for step in (5, 6, 7, 8, 9, 10)}


async def test_who_takes_one_up_or_goes_back_to_one_hashes_it_always(tmp_path: Path, looks: Counter[str]) -> None:
    run = await lived(tmp_path)
    looks.clear()
    for _ in range(2):
        newest_verified(run.path)
        read_checkpoint(run.path)
    run.close()
    assert looks == {"step-000008": 4}


@pytest.mark.parametrize("damage", ["shorter", "other", "gone", "more"])
async def test_a_folder_that_changed_is_looked_at_again(tmp_path: Path, looks: Counter[str], damage: str) -> None:
    """And counts no more, so that it pushes out no good one."""
    run = await lived(tmp_path)
    folders = sorted((run.path / "checkpoints").iterdir())
    file = folders[-1] / "ledger.parquet"
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "more":
        file.with_name("more").write_bytes(b"")
    else:
        file.write_bytes(data[:-1] if damage == "shorter" else data[:20] + b"x" + data[21:])
    looks.clear()
    verified = run.controller.stages.training.checkpoints.verified
    for _ in range(2):
        prune_checkpoints(run.path, 3, verified)
    run.close()
    assert looks == {folders[-1].name: 1}, "a bad one is hashed once too"
    assert sorted((run.path / "checkpoints").iterdir()) == folders, "three good ones stay, and the bad one"


async def test_a_damaged_checkpoint_of_the_present_step_is_written_again(tmp_path: Path) -> None:
    run = await lived(tmp_path)
    newest = sorted((run.path / "checkpoints").iterdir())[-1]
    (newest / "ledger.parquet").unlink()
    await run.controller.checkpoint()
    run.close()
    assert newest_verified(run.path) == newest


def test_a_folder_that_was_forgotten_is_looked_at_again_and_one_without_files_never(tmp_path: Path) -> None:
    verified = Verified()
    looked: list[Path] = []

    def look(folder: Path) -> bool:
        looked.append(folder)
        return True

    assert not verified.is_good(tmp_path, look)
    (tmp_path / "file").write_bytes(b"")
    assert verified.is_good(tmp_path, look)
    assert verified.is_good(tmp_path, look)
    verified.forget(tmp_path)
    assert verified.is_good(tmp_path, look)
    assert looked == [tmp_path, tmp_path]
