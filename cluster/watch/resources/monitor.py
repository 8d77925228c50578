"""Keeps a run within its disk and memory: refuses what will not fit, gives way step by step, names who grows.

first checkpoint, measured --project--> shortages: the run is refused with numbers
every sample_interval_s:  free disk --low_water--> transcripts off -> prune -> stop     processes --leaks--> incident
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cluster.config.run_config import RunConfig
from cluster.record.checkpoint import LEAST_KEPT, newest_checkpoint, prune_checkpoints
from cluster.record.events.machine import DiskFull, DiskLow, ProcessGrows, Projected
from cluster.record.recorder import Recorder
from cluster.record.run_processes import RunProcesses
from cluster.watch.resources.pressure import DiskAction, ProcessSampler, free_resources, leaks, low_water
from cluster.watch.resources.projection import (
    Footprint,
    checkpoint_bytes,
    first_footprint,
    project,
    scale_of,
    shortages,
    size,
)
from contracts.errors import ConfigError

_ORDER = list(DiskAction)


class ResourceMonitor:
    """halt: ends the run with the reason, after a last checkpoint. episodes: what memory holds, whose growth is meant."""

    def __init__(
        self,
        config: RunConfig,
        processes: RunProcesses,
        recorder: Recorder,
        halt: Callable[[str], None],
        episodes: Callable[[], int],
    ) -> None:
        self._config, self._settings = config, config.resources
        self._run_path = config.run_path
        self._processes, self._recorder, self._halt, self._episodes = processes, recorder, halt, episodes
        self._sampler = ProcessSampler(self._settings.leak_window_s)
        self._relief = DiskAction.NONE
        self._grown: set[tuple[str, int, str]] = set()
        looks = round(self._settings.leak_window_s / self._settings.sample_interval_s)
        self._stored: deque[int] = deque(maxlen=looks)  # episodes, look by look over one window
        self.footprint = first_footprint(0, config)

    def check_capacity(self, *, local_ray: bool) -> None:
        """Needs a checkpoint and an adapter on disk, which it measures. Raises ConfigError."""
        if not self._settings.enabled:
            return
        checkpoint = newest_checkpoint(self._run_path)
        adapters = list((self._run_path / "adapters").glob("v*"))
        adapter_bytes = max((folder_bytes(folder) for folder in adapters), default=0)
        guess = first_footprint(adapter_bytes, self._config)
        self.footprint = Footprint(
            checkpoint_bytes=folder_bytes(checkpoint) if checkpoint else guess.checkpoint_bytes,
            adapter_bytes=adapter_bytes,
            log_bytes_per_group=guess.log_bytes_per_group,
            rollouts_bytes_per_group=guess.rollouts_bytes_per_group,
            metrics_bytes_per_update=guess.metrics_bytes_per_update,
            bytes_per_episode=guess.bytes_per_episode,
        )
        projection = project(self.footprint, scale_of(self._config, local_ray=local_ray))
        free = free_resources(self._run_path)
        reserve = max(
            self._settings.stop_free_bytes,
            round(self._settings.stop_free_checkpoints * projection.last_checkpoint_bytes),
        )
        found = shortages(projection, free, reserve_bytes=reserve)
        self._recorder.event(
            Projected(projection.disk_bytes, free.disk_bytes, projection.memory_bytes, free.memory_bytes)
        )
        if found:
            raise ConfigError("; ".join(found) + ". To go on anyway: --set resources.enabled=false")

    async def run(self) -> None:
        """Consumes what the system says; produces relief and incidents; waits for nothing but the clock."""
        while self._settings.enabled:
            await asyncio.to_thread(self._sampler.sample, {**self._processes.here, "controller": os.getpid()})
            self._report_leaks()
            await self._give_way(*await asyncio.to_thread(self._free_and_next))
            await asyncio.sleep(self._settings.sample_interval_s)

    def _free_and_next(self) -> tuple[int, int]:
        """Bytes of disk that are free, and those that the next checkpoint takes."""
        checkpoint = newest_checkpoint(self._run_path)
        next_bytes = folder_bytes(checkpoint) if checkpoint else checkpoint_bytes(self.footprint, 0)
        return free_resources(self._run_path).disk_bytes, next_bytes

    async def _give_way(self, free_bytes: int, next_bytes: int) -> None:
        relief = low_water(free_bytes, next_bytes, self._settings)
        if _ORDER.index(relief) <= _ORDER.index(self._relief):
            return  # it was said and done; what was given up stays so until the run is resumed
        self._relief = relief
        self._recorder.transcripts = False
        told = f"{size(free_bytes)} of disk are free at {self._run_path}, a checkpoint takes {size(next_bytes)}"
        if relief is DiskAction.STOP_TRANSCRIPTS:
            self._recorder.event(DiskLow(f"{told}: rollouts/ is no longer written; the log still has everything"))
            return
        await asyncio.to_thread(prune_checkpoints, self._run_path, LEAST_KEPT)
        if relief is DiskAction.PRUNE:
            self._recorder.event(DiskLow(f"{told}: all but the newest {LEAST_KEPT} checkpoints were deleted"))
            return
        self._recorder.event(DiskFull(f"{told}: the run writes a last checkpoint and stops"))
        self._halt(f"{told}. Make room, or set run.directory to a larger disk, and `memr resume`")

    def _report_leaks(self) -> None:
        self._stored.append(self._episodes())
        meant = (self._stored[-1] - self._stored[0]) * self.footprint.bytes_per_episode
        for leak in leaks(self._sampler.history, self._settings, {"memory": max(0.0, meant)}):
            key = (leak.owner, leak.pid, leak.what)
            if key not in self._grown:
                self._grown.add(key)
                self._recorder.event(ProcessGrows(leak.headline))


def folder_bytes(folder: Path) -> int:
    """Of all files below it."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return found
