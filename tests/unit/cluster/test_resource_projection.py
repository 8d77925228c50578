"""What a run needs, counted by hand, and what is said when it is not there."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.watch.resources.projection import (
    Footprint,
    FreeResources,
    Projection,
    Scale,
    checkpoint_bytes,
    first_footprint,
    project,
    scale_of,
    shm_shortage,
    shortages,
    size,
)
from tests.harness import make_config

MB = 2**20
FOOTPRINT = Footprint(
    checkpoint_bytes=1000,
    adapter_bytes=100,
    log_bytes_per_group=10.0,
    rollouts_bytes_per_group=5.0,
    metrics_bytes_per_update=7.0,
    checkpoint_episodes=50,
    bytes_per_episode=2.0,
)
SCALE = Scale(
    num_updates=20,
    groups_per_batch=10,
    checkpoints_kept=3,
    adapters_on_disk=4,
    max_policy_lag=1,
    max_episodes=150,
    buffer_bytes=10**6,
    object_store_bytes=256 * MB,
)
PLENTY = FreeResources(10**15, 10**15, 10**15)


def test_the_projection_is_what_one_counts_by_hand() -> None:
    need = project(FOOTPRINT, SCALE)
    assert need.last_checkpoint_bytes == 1000 + 100 * 2  # 150 episodes, 50 of which were measured
    assert need.disk == {
        "checkpoints": 4 * 1200,  # three kept and the one being written
        "adapters": 7 * 100,  # four newest; a checkpoint's, an evaluation's, the one being written
        "log": 2200,  # 200 groups of 10 bytes, and a tenth
        "rollouts": 1100,
        "metrics": 140,
    }
    assert need.disk_bytes == 4800 + 700 + 2200 + 1100 + 140
    assert need.memory == {
        "buffer": 200,  # two batches' groups, far below the bound
        "episodes": 200,
        "object store": 256 * MB,
    }


def test_a_run_of_one_update_has_at_most_two_checkpoints_and_two_adapters() -> None:
    need = project(FOOTPRINT, replace(SCALE, num_updates=1))
    assert need.checkpoints == 2
    assert need.disk["adapters"] == 200


def test_lag_keeps_more_adapters_than_the_setting() -> None:
    assert project(FOOTPRINT, replace(SCALE, max_policy_lag=8)).disk["adapters"] == 12 * 100


def test_a_checkpoint_is_never_guessed_below_the_measured_one() -> None:
    assert checkpoint_bytes(FOOTPRINT, episodes=0) == 1000


def test_the_scale_comes_from_the_settings(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    scale = scale_of(config)
    rollouts = config.learner.num_updates * config.cluster.groups_per_batch * config.actors.rollouts_per_group
    assert scale.max_episodes == (rollouts if config.memory.enabled else 0)
    assert scale.object_store_bytes == config.cluster.object_store_bytes
    assert scale_of(config, local_ray=False).object_store_bytes == 0


def test_the_first_guess_is_not_below_what_a_real_run_had(tmp_path: Path) -> None:
    """SmolLM2-135M, LoRA of 9.8 MB, 12 tokens, 8 rollouts a group: learner 58.9 MB; a group took 8.8 KB of log, 0.4 KB of
    ledger and 2.4 KB of Parquet; an episode up to 3.6 KB of the snapshot."""
    config = make_config(tmp_path, actors={"rollouts_per_group": 8, "max_new_tokens": 12})
    guess = first_footprint(9_828_931, config)
    assert guess.checkpoint_bytes >= 58_857_344
    assert guess.log_bytes_per_group >= 8755 + 381
    assert guess.rollouts_bytes_per_group >= 2448
    assert guess.bytes_per_episode >= 3571


def test_nothing_is_said_where_all_fits() -> None:
    assert shortages(project(FOOTPRINT, SCALE), PLENTY) == []


def test_a_full_disk_is_told_with_numbers_and_the_knob() -> None:
    need = project(replace(FOOTPRINT, checkpoint_bytes=2**30), SCALE)
    (sentence,) = shortages(need, replace(PLENTY, disk_bytes=2**30))
    assert sentence.startswith(
        "disk: the run may write 4.0 GiB more, 1.0 GiB are free: most is for checkpoints (4.0 GiB)"
    )
    assert "cluster.checkpoints_kept" in sentence
    assert "run.directory" in sentence


@pytest.mark.parametrize(
    ("free", "present", "reserve", "short"),
    [
        (100, 0, 0, False),
        (99, 0, 0, True),
        (99, 1, 0, False),  # what a resumed run has written already is not needed again
        (100, 0, 1, True),  # the mark at which the run would stop must stay free
        (0, 500, 0, False),
    ],
)
def test_disk_counts_what_is_there_and_what_must_stay_free(free: int, present: int, reserve: int, short: bool) -> None:
    need = Projection({"log": 100}, {"buffer": 0}, 1, 0)
    found = shortages(need, replace(PLENTY, disk_bytes=free), present_bytes=present, reserve_bytes=reserve)
    assert bool(found) is short


def test_memory_names_who_takes_most() -> None:
    need = project(replace(FOOTPRINT, bytes_per_episode=1e7), SCALE)
    (sentence,) = shortages(need, replace(PLENTY, memory_bytes=2**30))
    assert "1.2 GiB more, 1.0 GiB are available: most is for episodes (953.7 MiB); lower memory.max_queries" in sentence


def test_an_object_store_beyond_shared_memory_is_told_with_both_ways_out() -> None:
    sentence = shm_shortage(256 * MB, replace(PLENTY, shm_bytes=64 * MB))
    assert "cluster.object_store_bytes is 256.0 MiB, /dev/shm has 64.0 MiB free" in sentence
    assert "--shm-size=320m" in sentence


def test_without_shared_memory_nothing_is_said_of_it() -> None:
    assert shm_shortage(256 * MB, replace(PLENTY, shm_bytes=None)) == ""
    assert shm_shortage(256 * MB, replace(PLENTY, shm_bytes=256 * MB)) == ""


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_for_people(number: int, text: str) -> None:
    assert size(number) == text
