"""Low water and leaks: what alarms, and above all what does not."""

import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from cluster.config.resources import ResourceSettings
from cluster.watch.resources.pressure import (
    DiskAction,
    ProcessSampler,
    Sample,
    container_headroom,
    free_resources,
    leaks,
    low_water,
    slope,
    steady_growth,
)
from contracts.settings import constant

MB = 2**20


class Limits(ResourceSettings):
    leak_window_s: ClassVar = constant(1200.0, last="")
    leak_growth_bytes: ClassVar = constant(100 * MB, last="")
    leak_growth_handles: ClassVar = constant(100, last="")


SETTINGS = Limits(sample_interval_s=10.0, stop_free_bytes=250)


@pytest.mark.parametrize(
    ("free", "checkpoint", "relief"),
    [
        (1000, 0, DiskAction.NONE),
        (999, 0, DiskAction.STOP_TRANSCRIPTS),
        (499, 0, DiskAction.PRUNE),
        (249, 0, DiskAction.STOP_RUN),
        (4000, 1000, DiskAction.NONE),  # a large checkpoint moves every mark: 4, 2.5 and 1.5 of it
        (3999, 1000, DiskAction.STOP_TRANSCRIPTS),
        (2499, 1000, DiskAction.PRUNE),
        (1499, 1000, DiskAction.STOP_RUN),
    ],
)
def test_low_water(free: int, checkpoint: int, relief: DiskAction) -> None:
    assert low_water(free, checkpoint, SETTINGS) is relief


def test_the_run_stops_while_a_last_checkpoint_still_fits() -> None:
    for checkpoint in (0, 10**6, 10**9, 10**12):
        assert low_water(checkpoint, checkpoint, ResourceSettings()) is DiskAction.STOP_RUN


def test_too_few_looks_to_tell_growth_from_noise_are_refused() -> None:
    with pytest.raises(ValidationError, match="fewer than 12 looks"):
        ResourceSettings(sample_interval_s=151.0)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0.0),
        ([(5.0, 7)], 0.0),
        ([(5.0, 7), (5.0, 9)], 0.0),
        ([(0.0, 10), (2.0, 30)], 10.0),
        ([(0.0, 0), (1.0, 3), (2.0, 0)], 0.0),
        ([(1.7e9, 0), (1.7e9 + 1, 1), (1.7e9 + 2, 5)], 2.5),  # (5 - 0) / 2: the middle has no weight
    ],
)
def test_slope_by_hand(points: list[tuple[float, int]], expected: float) -> None:
    assert slope(points) == pytest.approx(expected)


def series(of: Callable[[float], float], seconds: int = 1500, pid: int = 7, handles: int = 20) -> list[Sample]:
    """`of`: private MB at a second."""
    return [Sample(float(t), pid, round(of(t) * MB) + 300 * MB, 300 * MB, handles) for t in range(0, seconds, 10)]


def found(samples: list[Sample]) -> list[str]:
    return [leak.what for leak in leaks({"worker-0": samples}, SETTINGS)]


def test_steady_growth_is_a_leak_with_owner_size_and_time() -> None:
    (leak,) = leaks({"learner": series(lambda t: 500), "memory": series(lambda t: 500 + t / 5)}, SETTINGS)
    assert (leak.owner, leak.pid, leak.what, leak.window_s) == ("memory", 7, "memory", 1200.0)
    assert leak.growth == pytest.approx(240 * MB)
    assert leak.headline == "memory (process 7) grows: 240.0 MiB of memory in 20 min, now 798.0 MiB"


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_is_seen_through_noise_and_the_sawtooth_of_a_collector(seed: int) -> None:
    noise = random.Random(seed)
    assert found(series(lambda t: 500 + t / 5 + noise.gauss(0, 30))) == ["memory"]
    assert found(series(lambda t: 500 + t / 5 + t % 120 / 2)) == ["memory"]


@pytest.mark.parametrize("seed", range(20))
def test_noise_about_a_level_is_none(seed: int) -> None:
    noise = random.Random(seed)
    assert found(series(lambda t: 800 + noise.gauss(0, 200))) == []


@pytest.mark.parametrize("seed", range(10))
def test_warm_up_that_levels_out_is_none(seed: int) -> None:
    noise = random.Random(seed)
    for seconds in (20, 100, 200):
        assert found(series(lambda t, s=seconds: 2000 * (1 - math.exp(-t / s)) + noise.gauss(0, 20))) == []  # type: ignore[misc]


@pytest.mark.parametrize("jump_s", [350, 600, 900, 1200, 1400])
def test_one_jump_is_none(jump_s: int) -> None:
    assert found(series(lambda t: 500 + 1000 * (t >= jump_s))) == []


@pytest.mark.parametrize(
    "shape",
    [
        lambda t: 1000 - t / 5,  # falls
        lambda t: 500 + 1000 * (1450 <= t < 1480),  # a spike at the end
        lambda t: 500 + t / 20,  # 60 MB in the window: below the bytes
        lambda t: 5000 + t / 10,  # 120 MB in the window, but 2 % of it: below the share
        lambda t: 500 + 100 * math.sin(t / 200),
        lambda t: 500 + t % 300 * 2,  # a slow sawtooth
        lambda t: 500 + min(t, 700) / 2,  # grew, and has stopped
        lambda t: 500 + t / 2 if t < 1400 else 500,  # grew, and was given back just now
    ],
)
def test_what_else_is_none(shape: Callable[[float], float]) -> None:
    assert found(series(shape)) == []


def test_less_than_a_window_tells_nothing() -> None:
    assert found(series(lambda t: 500 + t, seconds=1200)) == []
    assert found([]) == []
    assert steady_growth([(0.0, 0), (1200.0, 10**12)]) == 0.0


def test_a_process_started_anew_begins_anew() -> None:
    old = series(lambda t: 100 + t / 20, seconds=750)
    new = [Sample(s.time_s + 750, 8, s.rss_bytes * 4, s.shared_bytes, s.handles) for s in old]
    assert found(old + new) == []


def test_growth_that_others_share_is_none() -> None:
    grows = [Sample(float(t), 7, 500 * MB + t * MB, t * MB, 20) for t in range(0, 1500, 10)]
    assert found(grows) == []


def test_growth_that_is_meant_is_taken_off() -> None:
    history = {"memory": series(lambda t: 500 + t / 5)}
    assert leaks(history, SETTINGS, {"memory": 200 * MB}) == []
    assert len(leaks(history, SETTINGS, {"memory": 100 * MB})) == 1


def test_handles_that_are_never_closed_are_a_leak_of_their_own() -> None:
    grows = [Sample(float(t), 7, 500 * MB, 0, 20 + t // 4) for t in range(0, 1500, 10)]
    (leak,) = leaks({"controller": grows}, SETTINGS)
    assert leak.what == "handles"
    assert "open file handles in 20 min, now 392" in leak.headline


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_sampler_reads_this_process_and_skips_what_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    sampler = ProcessSampler(100.0)
    found = sampler.sample({"controller": os.getpid(), "worker-0": gone.pid})
    assert set(found) == {"controller"}
    assert found["controller"].private_bytes > MB
    assert found["controller"].handles > 0


def test_a_process_that_ended_and_was_not_reaped_is_skipped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessSampler(100.0).sample({"worker-0": child.pid}) == {}
    child.communicate()


def test_the_sampler_sees_an_opened_file(tmp_path: Path) -> None:
    sampler = ProcessSampler(100.0)
    before = sampler.sample({"me": os.getpid()})["me"].handles
    with (tmp_path / "open").open("w"):
        assert sampler.sample({"me": os.getpid()})["me"].handles == before + 1


def test_history_is_a_little_more_than_a_window_and_forgets_who_is_not_named() -> None:
    clock = Clock()
    sampler = ProcessSampler(100.0, clock)
    for now_s in range(0, 1000, 10):
        clock.now_s = now_s
        sampler.sample({"a": os.getpid()})
    times = [sample.time_s for sample in sampler.history["a"]]
    assert times == [870, 880, 890, 900, 910, 920, 930, 940, 950, 960, 970, 980, 990]
    sampler.sample({"b": os.getpid()})
    assert set(sampler.history) == {"b"}


def test_free_resources_of_a_run_that_is_not_there_yet(tmp_path: Path) -> None:
    free = free_resources(tmp_path / "runs" / "new")
    assert free.disk_bytes > 0
    assert free.memory_bytes > 0


def group(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used}\ninactive_file {inactive}\n")


def member(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cgroup_of_self"
    path.write_text(text)
    return path


def test_the_tightest_limit_above_the_process_counts_and_cached_files_do_not(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root / "pod", "1000", used=700, inactive=100)
    group(root / "pod" / "memr", "2000", used=200)
    assert container_headroom(root, member(tmp_path, "0::/pod/memr\n")) == 400


def test_a_container_sees_its_own_limit_at_the_root(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", "1000", used=900)
    assert container_headroom(tmp_path / "cgroup", member(tmp_path, "0::/\n")) == 100


@pytest.mark.parametrize("text", ["0::/pod\n", "4:memory:/pod\n", "0::/elsewhere\n", ""])
def test_no_limit_is_none(tmp_path: Path, text: str) -> None:
    group(tmp_path / "cgroup" / "pod", "max", used=5)
    assert container_headroom(tmp_path / "cgroup", member(tmp_path, text)) is None
    assert container_headroom(tmp_path, tmp_path / "not there") is None
