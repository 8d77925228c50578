"""Saved and restored, a learner goes on bit for bit; what does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.errors import DataError
from contracts.rollout import ScoredGroup
from learner.learner import Learner
from tests.synced import SyncedFiles
from tests.unit.learner.builders import group, random_batch, scored, tiny_learner

SETTINGS: dict[str, Any] = {
    "kl_weight": 0.1,
    "kl_reference": "moving_average",
    "moving_average_decay": 0.5,
    "lora_dropout": 0.1,
    "schedule": "cosine",
    "num_updates": 10,
}


def batch(version: int) -> list[ScoredGroup]:
    return [scored(group(g.group.rollouts, g.group.prompt_P.tolist(), version)) for g in random_batch(seed=version)]


def run(learner: Learner, versions: range) -> list[float]:
    return [learner.step(batch(version)).loss for version in versions]


@pytest.mark.parametrize("changes", [{}, SETTINGS])
def test_restored_learner_continues_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    """Dropout draws from the random state, the cosine from the version, AdamW from its moments."""
    first = tiny_learner(**changes)
    run(first, range(3))
    first.save(tmp_path)
    uninterrupted = run(first, range(3, 6))
    torch.manual_seed(987)
    second = tiny_learner(warm=False, **changes)
    second.restore(tmp_path)
    assert second.policy_version == 3
    assert run(second, range(3, 6)) == uninterrupted
    assert second.publish().weights == first.publish().weights
    state, other = first.masters.state(), second.masters.state()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_untrained_learner_can_be_saved_and_restored(tmp_path: Path) -> None:
    tiny_learner(warm=False).save(tmp_path)
    restored = tiny_learner()
    restored.restore(tmp_path)
    assert restored.publish().weights == tiny_learner(warm=False).publish().weights


def test_a_saved_learner_is_on_disk_whole(tmp_path: Path, synced_files: SyncedFiles) -> None:
    """Who gives the checkpoint its name may be on another machine: nobody else can sync these files."""
    tiny_learner().save(tmp_path / "learner")
    assert synced_files.missing(tmp_path / "learner") == []


def test_checkpoint_is_safetensors_and_json_alone(tmp_path: Path) -> None:
    tiny_learner().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learner.json", "learner.safetensors"]


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    learner = tiny_learner()
    learner.save(tmp_path)
    path = tmp_path / "learner.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(DataError, match="resume from an older checkpoint"):
        learner.restore(tmp_path)


def test_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    learner = tiny_learner()
    learner.save(tmp_path)
    (tmp_path / "learner.json").unlink()
    with pytest.raises(DataError, match="cannot read the learner checkpoint"):
        learner.restore(tmp_path)


def test_another_runs_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    tiny_learner(lora_r=4).save(tmp_path)
    with pytest.raises(DataError, match="lora_r 4, this learner has 8"):
        tiny_learner(lora_r=8).restore(tmp_path)
    fields = json.loads((tmp_path / "learner.json").read_text())
    (tmp_path / "learner.json").write_text(json.dumps(fields | {"template_hash": "other"}))
    with pytest.raises(DataError, match="template_hash 'other'"):
        tiny_learner(lora_r=4).restore(tmp_path)
