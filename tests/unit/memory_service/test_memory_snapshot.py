"""A snapshot is everything, or it is refused whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import MemoryServiceError
from contracts.rollout import RolloutGroup
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from tests.fakes import make_group
from tests.synced import SyncedFiles


def memory(dimension: int = 16, **values: object) -> EpisodicMemory:
    return EpisodicMemory(MemorySettings.model_validate(values), HashEncoder(dimension))


def groups(start: int, count: int) -> list[RolloutGroup]:
    random = np.random.default_rng(start)
    return [
        make_group(i, rewards=[float(random.random() < 0.5) for _ in range(3)], question=f"question {i % 7}")
        for i in range(start, start + count)
    ]


@pytest.mark.parametrize("profile", ["memr", "paper", "released_code"])
def test_a_restored_memory_goes_on_as_if_nothing_had_happened(profile: str, tmp_path: Path) -> None:
    limits: dict[str, Any] = {
        "profile": profile,
        "max_queries": 4,
        "max_responses_per_query": 3,
        "neighbours_k": 2,
        "warmup": 1,
    }
    kept = memory(**limits)
    kept.score(groups(0, 15))
    name = kept.save(tmp_path)
    restored = memory(**limits)
    restored.restore(tmp_path / name)
    assert restored.report().memory_version == 15
    for left, right in zip(kept.score(groups(15, 9)), restored.score(groups(15, 9)), strict=True):
        assert np.array_equal(left.exploit_G, right.exploit_G)
        assert np.array_equal(left.explore_G, right.explore_G)
        assert left.memory_version == right.memory_version
    assert kept.contents() == restored.contents()
    again = restored.score(groups(14, 1))
    assert again[0].memory_version == 14, "a group scored before the snapshot is answered, not written again"


def test_an_empty_memory_can_be_saved(tmp_path: Path) -> None:
    restored = memory()
    restored.restore(tmp_path / memory().save(tmp_path))
    assert restored.report().episodes == 0


@pytest.mark.parametrize("file", ["vectors.safetensors", "episodes.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "edit"])
def test_a_damaged_snapshot_is_refused_and_changes_nothing(file: str, damage: str, tmp_path: Path) -> None:
    source = memory()
    source.score(groups(0, 5))
    path = tmp_path / source.save(tmp_path) / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"x" + content[1:])
    victim = memory()
    victim.score(groups(20, 2))
    with pytest.raises(MemoryServiceError, match=r"snapshot-00000005"):
        victim.restore(path.parent)
    assert victim.report().memory_version == 2


def test_another_encoders_snapshot_is_refused_with_what_to_set(tmp_path: Path) -> None:
    source = memory()
    source.score(groups(0, 2))
    name = source.save(tmp_path)
    with pytest.raises(MemoryServiceError, match=r"another encoder.*memory\.encoder"):
        memory(dimension=32).restore(tmp_path / name)


def test_a_snapshot_that_has_its_name_is_on_disk_whole(tmp_path: Path, synced_files: SyncedFiles) -> None:
    source = memory()
    source.score(groups(0, 5))
    source.save(tmp_path)
    assert synced_files.missing(tmp_path) == []


def test_half_a_snapshot_is_never_left_under_its_name(tmp_path: Path) -> None:
    source = memory()
    source.score(groups(0, 2))
    source.save(tmp_path)
    source.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot-00000002"]
