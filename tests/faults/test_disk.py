"""A disk that fills up, for real: a small file system of its own. Nothing that was finished is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_run import FaultRun

pytestmark = pytest.mark.timeout(700)
MIB = 2**20
DISK_MIB = 240


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk)]
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
    ballast.write_bytes(bytes((DISK_MIB - 4) * MIB))
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


@pytest.mark.long
def test_what_will_not_fit_is_refused_and_low_water_stops_with_a_checkpoint(small_disk: Path) -> None:
    large = FaultRun(small_disk, "large", eval__problems=0, learner__num_updates=100_000)
    try:
        assert large.finish() == 2
    finally:
        large.end()
    assert "must stay free" in large.output
    shutil.rmtree(large.path)
    run = FaultRun(
        small_disk,
        "r",
        eval__problems=0,
        learner__num_updates=100,
        resources__stop_free_bytes=20 * MIB,
        resources__sample_interval_s=0.2,
    )
    try:
        run.wait_for_step(10)
        free = shutil.disk_usage(small_disk).free
        (small_disk / "ballast").write_bytes(bytes(free - 15 * MIB))  # somebody else's file
        assert run.finish() == 3, run.output[-2000:]
    finally:
        run.end()
    assert "of disk are free" in run.headlines()[-1]
    newest = max(int(path.name.split("-")[1]) for path in (run.path / "checkpoints").glob("step-*"))
    assert newest == run.steps()
