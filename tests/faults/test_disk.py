"""A disk that fills up, for real: a small file system of its own. Nothing that was finished is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_run import FaultRun

pytestmark = pytest.mark.timeout(300)
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("mounting a file system takes root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], timeout=30, check=True)


def begin(disk: Path, **settings: object) -> FaultRun:
    return FaultRun(disk, "r", learner__num_updates=120, eval__problems=0, **settings)


def test_a_full_disk_ends_the_run_with_its_reason_and_with_room_it_goes_on(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(20 * MIB))
    full = begin(small_disk, resources__enabled="false")
    try:
        assert full.finish() == 3, full.output[-2000:]
    finally:
        full.end()
    assert 0 < full.steps() < 120
    ballast.unlink()
    again = begin(small_disk, resources__enabled="false")
    try:
        assert again.finish() == 0, again.output[-2000:]
    finally:
        again.end()
    books = again.books()
    assert (books.issued, books.trained, books.lost) == (960, 960, 0)
    assert (books.trained_twice, books.sampled_twice, books.steps_in_order) == (0, 0, True)


def test_low_water_gives_way_step_by_step_and_stops_with_a_checkpoint_that_fits(small_disk: Path) -> None:
    marks = {
        "resources__transcripts_free_bytes": 20 * MIB,
        "resources__prune_free_bytes": 19 * MIB,
        "resources__stop_free_bytes": 12 * MIB,
        "resources__sample_interval_s": 0.2,
    }
    run = begin(small_disk, **marks)
    try:
        assert run.finish() == 2, "24 MiB are refused before anything is spent"
        assert "must stay free" in run.output
    finally:
        run.end()
    shutil.rmtree(run.path)
    marks |= {"learner__num_updates": 60, "resources__stop_free_bytes": 8 * MIB}
    run = FaultRun(small_disk, "r", eval__problems=0, **marks)
    try:
        run.wait_for_step(10)
        (small_disk / "ballast").write_bytes(bytes(14 * MIB))  # somebody else's file
        assert run.finish() == 3, run.output[-2000:]
    finally:
        run.end()
    assert "of disk are free" in run.headlines()[-1]
    newest = max(int(path.name.split("-")[1]) for path in (run.path / "checkpoints").glob("step-*"))
    assert newest == run.steps()
