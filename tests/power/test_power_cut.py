"""A power cut costs nothing that the run told the world of, wherever it comes and whatever a disk makes of it; and no sync is
there for nothing: without any single one, some disk shows a broken promise."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.power.crash import (
    Recording,
    State,
    breaking_state,
    problems,
    random_state,
    record,
    recordings,
    resumed_by_command,
    why_not,
)
from tests.power.disk import random_cut

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(1200)]
FEW = (
    "run_log.sync < history.trained",
    "checkpoint._name: place_folder checkpoints",
    "checkpoint._write: write_file checkpoint.json",
    "adapter_registry.write_adapter < adapter_registry.publish: place_folder adapters",
    "checkpoint.prune_checkpoints",
    "snapshot.write_snapshot < service.save: sync_file vectors.safetensors",
    "run_dir._write_run < run_dir.create_run < life._begin: make_directory disk",
)
"""Those whose loss shows within a second or two; `test_no_sync_is_there_for_nothing` has all of them."""


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """In memory where there is such a folder: thousands of files are written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def recorded(scratch: Path) -> list[Recording]:
    return recordings(scratch)


def resume_one(recorded: list[Recording], seed: int, scratch: Path) -> None:
    state, folder = random_state(recorded, seed), scratch / f"seed-{seed}"
    found = problems(state, folder)
    assert not found, f"seed {seed}, {state.recording.name} after {state.count} operations: {found}"
    shutil.rmtree(folder)


def test_whatever_the_disk_shows_the_run_goes_on_with_all_that_it_told(
    recorded: list[Recording], scratch: Path
) -> None:
    for seed in range(24):
        resume_one(recorded, seed, scratch)


@pytest.mark.parametrize("site", FEW)
def test_without_one_sync_a_promise_breaks(recorded: list[Recording], scratch: Path, site: str) -> None:
    [whole] = {name for recording in recorded for name in recording.sites if name.startswith(site)}
    assert breaking_state(recorded, whole, scratch / "sites") is not None


@pytest.mark.long
def test_two_hundred_cuts_cost_nothing(recorded: list[Recording], scratch: Path) -> None:
    for seed in range(1000, 1200):
        resume_one(recorded, seed, scratch)


@pytest.mark.long
def test_no_sync_is_there_for_nothing(recorded: list[Recording], scratch: Path) -> None:
    sites = sorted({site for recording in recorded for site in recording.sites})
    assert len(sites) > 35
    assert [site for site in sites if breaking_state(recorded, site, scratch / "sites") is None] == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_the_command_itself_takes_up_what_a_power_cut_left(scratch: Path, seed: int) -> None:
    [recording] = [record(scratch, f"plain-{seed}", [["--plain"]], updates=8)]
    told = [i for i, operation in enumerate(recording.operations) if operation.kind == "M"]
    state = State(recording, random.Random(seed).randint(told[3], told[-4]), random_cut(seed))
    assert resumed_by_command(state, scratch / f"command-{seed}") == []
