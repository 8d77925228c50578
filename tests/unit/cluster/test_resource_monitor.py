"""A run is refused, with numbers, where a resource will not last; nothing is refused that was told to go on."""

from pathlib import Path

import pytest

from cluster.launch.ray_session import ray_session
from cluster.record.recorder import Recorder
from cluster.record.run_processes import RunProcesses
from cluster.watch.resources.monitor import ResourceMonitor
from cluster.watch.resources.projection import FreeResources
from contracts.errors import ConfigError
from tests.harness import make_config

MB = 2**20


def preflight(path: Path, *, enabled: bool = True) -> None:
    config = make_config(path, resources={"enabled": enabled})
    config.run_path.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(config.run_path, [])
    try:
        keeper = ResourceMonitor(config, RunProcesses(config.run_path), recorder, lambda _why: None, lambda: 0)
        keeper.check_capacity(local_ray=True)
    finally:
        recorder.close()


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (
            FreeResources(10**15, 100 * MB, 10**15),
            r"^memory: the run may take .* more, 100.0 MiB are available: .* object",
        ),
        (FreeResources(10 * MB, 10**15, 10**15), r"^disk: the run may write .* more .* 10.0 MiB are free"),
        (FreeResources(10 * MB, 100 * MB, 10**15), r"^disk: .*; memory: .* --set resources.enabled=false"),
    ],
)
def test_a_run_that_will_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: FreeResources, said: str
) -> None:
    monkeypatch.setattr("cluster.watch.resources.monitor.free_resources", lambda _path: free)
    with pytest.raises(ConfigError, match=said):
        preflight(tmp_path)
    preflight(tmp_path, enabled=False)


def test_a_run_that_fits_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = FreeResources(10**15, 10**15, 10**15)
    monkeypatch.setattr("cluster.watch.resources.monitor.free_resources", lambda _path: plenty)
    preflight(tmp_path)


def test_ray_is_not_started_where_its_store_would_land_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = FreeResources(10**15, 10**15, 64 * MB)
    monkeypatch.setattr("cluster.launch.ray_session.free_resources", lambda _path: small)
    refused = pytest.raises(ConfigError, match=r"/dev/shm has 64.0 MiB free: .* --shm-size=320m. To go on anyway")
    with refused, ray_session(make_config(tmp_path), None):
        pytest.fail("it was started")
