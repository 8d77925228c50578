"""Versions count up, reach disk whole, and go when nobody needs them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.record.adapter_registry import AdapterRegistry, adapter_folder, read_adapter, write_adapter
from contracts.adapter import Adapter, Amplified, AmplifiedProbe, Probe, Reading
from contracts.errors import ConfigError, DataError
from tests.fakes import make_adapter
from tests.synced import SyncedFiles


def registry(path: Path, keep: int = 2) -> AdapterRegistry:
    return AdapterRegistry(path, lambda adapter: adapter, keep)


def test_versions_count_up_by_one_and_are_never_replaced(tmp_path: Path) -> None:
    adapters = registry(tmp_path)
    adapters.publish(make_adapter(0))
    adapters.publish(make_adapter(1))
    for wrong in (1, 3):
        with pytest.raises(ValueError, match="versions count up by one"):
            adapters.publish(make_adapter(wrong))
    assert adapters.newest == 1


def test_a_version_that_workers_can_see_is_on_disk_whole(tmp_path: Path, synced_files: SyncedFiles) -> None:
    def share(adapter: Adapter) -> Adapter:
        assert synced_files.missing(tmp_path) == []
        return adapter

    adapters = AdapterRegistry(tmp_path, share, keep=2)
    adapters.publish(make_adapter(0))
    assert adapters.newest == 0


def test_old_versions_go_unless_pinned(tmp_path: Path) -> None:
    adapters = registry(tmp_path)
    for version in range(5):
        adapters.publish(make_adapter(version))
    adapters.prune(pinned={1})
    assert sorted(p.name[:7] for p in tmp_path.glob("v*")) == ["v000001", "v000003", "v000004"]
    assert adapters.reference(1).manifest.policy_version == 1
    with pytest.raises(KeyError):
        adapters.reference(0)


def test_adapter_comes_back_from_disk_and_damage_is_noticed(tmp_path: Path) -> None:
    adapter = make_adapter(3)
    folder = write_adapter(adapter, tmp_path)
    assert folder.name == adapter.manifest.name
    back = read_adapter(folder)
    assert back.weights == adapter.weights
    assert back.manifest.lora == adapter.manifest.lora
    (folder / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match="the artifact is damaged"):
        read_adapter(folder)


def test_what_the_learner_read_for_the_proof_stays_out_of_the_disk_copy(tmp_path: Path) -> None:
    tokens_P, scores_P = np.zeros(2, np.int32), np.zeros(2, np.float32)
    reading = Reading(scores_P, scores_P)
    made = make_adapter(1)
    read: dict[str, Any] = {
        "probes": (Probe(tokens_P, reading, reading),),
        "amplified": Amplified(64.0, (AmplifiedProbe(tokens_P, scores_P, scores_P),)),
    }
    adapter = Adapter(replace(made.manifest, **read), made.weights)
    back = read_adapter(write_adapter(adapter, tmp_path))
    assert back.weights == adapter.weights
    assert (back.manifest.probes, back.manifest.amplified) == ((), None)


def test_a_folder_without_manifest_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "v000009-abc").mkdir()
    write_adapter(make_adapter(2), tmp_path)
    assert adapter_folder(tmp_path).name.startswith("v000002")
    with pytest.raises(DataError, match="not an adapter"):
        read_adapter(tmp_path / "v000009-abc")


def test_any_version_that_is_kept_is_found_and_another_is_refused_with_those_that_are(tmp_path: Path) -> None:
    for version in (3, 5):
        write_adapter(make_adapter(version), tmp_path)
    assert adapter_folder(tmp_path, 3).name.startswith("v000003")
    assert adapter_folder(tmp_path).name.startswith("v000005")
    with pytest.raises(ConfigError, match="no adapter of version 4; it keeps those of 3, 5"):
        adapter_folder(tmp_path, 4)


def test_weights_must_match_the_manifest() -> None:
    good = make_adapter(1)
    with pytest.raises(ValueError, match="damaged"):
        Adapter(good.manifest, bytes(good.weights) + b"x")


def test_versions_of_a_life_that_the_log_lost_are_set_aside_and_made_anew(tmp_path: Path) -> None:
    before = registry(tmp_path)
    for version in range(4):
        before.publish(make_adapter(version))
    after = registry(tmp_path)
    assert after.set_aside_after(1) == [make_adapter(v).manifest.name for v in (2, 3)]
    assert adapter_folder(tmp_path).name == make_adapter(1).manifest.name
    after.publish(make_adapter(1))
    after.publish(make_adapter(2, b"trained on other rollouts"))
    assert read_adapter(adapter_folder(tmp_path)).weights == make_adapter(2, b"trained on other rollouts").weights
    assert len(list(tmp_path.glob("lost-v*"))) == 2
    assert after.reload(0)
    assert not after.reload(3)


def test_a_version_that_comes_out_otherwise_stands_alone_under_its_number(tmp_path: Path) -> None:
    registry(tmp_path).publish(make_adapter(0))
    after = registry(tmp_path)
    after.publish(make_adapter(0, b"on another machine"))
    [folder] = tmp_path.glob("v000000-*")
    assert read_adapter(folder).weights == make_adapter(0, b"on another machine").weights
    assert [lost.name for lost in tmp_path.glob("lost-*")] == [f"lost-{make_adapter(0).manifest.name}"]


def test_a_whole_folder_of_the_same_version_stays_a_damaged_one_is_written_again(tmp_path: Path) -> None:
    folder = write_adapter(make_adapter(0), tmp_path)
    born = folder.stat().st_ino
    assert write_adapter(make_adapter(0), tmp_path).stat().st_ino == born
    (folder / "adapter_model.safetensors").write_bytes(b"")
    write_adapter(make_adapter(0), tmp_path)
    assert read_adapter(folder).weights == make_adapter(0).weights


def test_a_version_that_nobody_could_prove_is_not_read_back(tmp_path: Path) -> None:
    first = registry(tmp_path)
    for version in range(3):
        first.publish(make_adapter(version))
    first.skip(0, "worker", by_all=True)
    first.skip(1, "coarse")
    later = registry(tmp_path)
    assert (later.reload(0), later.given_up(0)) == (False, True)
    assert (later.reload(1), later.skipped(1, "coarse"), later.skipped(1, "exact")) == (True, True, False)
    assert (later.reload(2), later.skipped(2, "coarse")) == (True, False)


def test_what_is_proven_after_all_is_read_back(tmp_path: Path) -> None:
    first = registry(tmp_path)
    first.publish(make_adapter(0))
    first.skip(0, "worker", by_all=True)
    second = registry(tmp_path)
    second.publish(make_adapter(0))
    assert (second.refused_by_all(0), second.servable("worker")) == (True, 0), "published anew it may be tried again"
    second.proven(0, "worker")
    assert registry(tmp_path).reload(0)
