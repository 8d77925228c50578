"""Is the disk running full, does a process grow without end? Decisions are functions of what was measured; two small
pieces measure.

    free_resources -> low_water -> DiskAction       ProcessSampler -> history -> leaks -> [Leak]

Who acts on it is the controller: nothing here deletes, warns or stops.
"""

import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import psutil

from cluster.config.resources import ResourceSettings
from cluster.watch.resources.projection import FreeResources, size

_KEPT_WINDOWS = 1.25  # a little more than one, or a whole window would never be on record
_SMALLEST_STEP = 1 / 8  # of the growth, from each quarter to the next; perfectly steady growth makes 1/4


class DiskAction(StrEnum):
    """What low disk asks for, in rising order; each includes those before it."""

    NONE = "none"
    STOP_TRANSCRIPTS = "stop_transcripts"
    PRUNE = "prune"
    STOP_RUN = "stop_run"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process. shared_bytes: the part of rss_bytes that others may hold too (files, Ray's object store):
    it is bounded elsewhere, or given back by the system when memory is short."""

    time_s: float
    pid: int
    rss_bytes: int
    shared_bytes: int
    handles: int

    @property
    def private_bytes(self) -> int:
        return self.rss_bytes - self.shared_bytes


@dataclass(frozen=True, slots=True)
class Leak:
    """`owner` (worker-0, memory, learner, controller) has grown steadily by `growth` within `window_s`. what: "memory" in
    bytes, or "handles"."""

    owner: str
    pid: int
    what: str
    growth: float
    window_s: float
    now: int

    @property
    def headline(self) -> str:
        if self.what == "handles":
            grown, now = f"{self.growth:.0f} open file handles", f"{self.now}"
        else:
            grown, now = f"{size(self.growth)} of memory", size(self.now)
        return f"{self.owner} (process {self.pid}) grows: {grown} in {self.window_s / 60:.0f} min, now {now}"


def low_water(free_bytes: int, next_checkpoint_bytes: int, settings: ResourceSettings) -> DiskAction:
    """The strongest measure whose mark free disk has fallen below."""
    marks = (
        (DiskAction.STOP_RUN, settings.stop_free_bytes, settings.stop_free_checkpoints),
        (DiskAction.PRUNE, settings.prune_free_bytes, settings.prune_free_checkpoints),
        (DiskAction.STOP_TRANSCRIPTS, settings.transcripts_free_bytes, settings.transcripts_free_checkpoints),
    )
    for relief, floor_bytes, checkpoints in marks:
        if free_bytes < max(floor_bytes, checkpoints * next_checkpoint_bytes):
            return relief
    return DiskAction.NONE


def leaks(
    history: Mapping[str, Sequence[Sample]],
    settings: ResourceSettings,
    explained_bytes: Mapping[str, float] = MappingProxyType({}),
) -> list[Leak]:
    """Owners whose memory or file handles rise steadily; worst growth of memory first. A process that was started anew
    begins its history anew. explained_bytes: growth within a window that is meant, by owner (the memory's new
    episodes)."""
    found = []
    for owner, samples in history.items():
        recent = _last_window(samples, settings.leak_window_s)
        for what, least in (("memory", settings.leak_growth_bytes), ("handles", settings.leak_growth_handles)):
            points = [(s.time_s, s.private_bytes if what == "memory" else s.handles) for s in recent]
            growth = steady_growth(points)
            if what == "memory":
                growth -= explained_bytes.get(owner, 0.0)
            if growth >= max(least, settings.leak_growth_share * min((y for _, y in points), default=0)):
                window_s = points[-1][0] - points[0][0]
                found.append(Leak(owner, recent[-1].pid, what, growth, window_s, points[-1][1]))
    return sorted(found, key=lambda leak: (leak.what != "memory", -leak.growth))


def steady_growth(points: Sequence[tuple[float, int]]) -> float:
    """How much points (seconds, amount) rise from first to last by their slope; 0 unless they rise all along.

    Warm-up and a single jump raise the slope and are no leak: the medians of the four quarters must each rise, and the
    second half must still do so. Medians, so that a spike counts for nothing.
    """
    if len(points) < 8:
        return 0.0
    growth = slope(points) * (points[-1][0] - points[0][0])
    bounds = [round(len(points) * i / 4) for i in range(5)]
    medians = [statistics.median(y for _, y in points[bounds[i] : bounds[i + 1]]) for i in range(4)]
    least = growth * _SMALLEST_STEP
    rises = all(medians[i + 1] - medians[i] >= least for i in range(3))
    return growth if growth > 0 and rises and slope(points[bounds[2] :]) > 0 else 0.0


def slope(samples: Sequence[tuple[float, int]]) -> float:
    """Amount per second by least squares; 0 where there is no telling."""
    times = [time_s for time_s, _ in samples]
    if len(set(times)) < 2:
        return 0.0
    return statistics.linear_regression(times, [amount for _, amount in samples]).slope


def _last_window(samples: Sequence[Sample], window_s: float) -> list[Sample]:
    """Of the process that there is now; empty until a whole window is on record."""
    present = [sample for sample in samples if sample.pid == samples[-1].pid]
    if not present or present[-1].time_s - present[0].time_s < window_s:
        return []
    return [sample for sample in present if sample.time_s >= present[-1].time_s - window_s]


class ProcessSampler:
    """Looks at processes of this machine and remembers a little more than one window of each."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept_s = window_s * _KEPT_WINDOWS
        self._clock = clock
        self._history: dict[str, deque[Sample]] = {}

    @property
    def history(self) -> dict[str, list[Sample]]:
        return {owner: list(samples) for owner, samples in self._history.items()}

    def sample(self, pids: Mapping[str, int]) -> dict[str, Sample]:
        """By owner; a process that is gone or hidden is left out. Who is no longer named is forgotten."""
        now_s = self._clock()
        found = {owner: sample for owner, pid in pids.items() if (sample := _look(pid, now_s)) is not None}
        self._history = {owner: self._history.get(owner, deque()) for owner in found}
        for owner, sample in found.items():
            samples = self._history[owner]
            samples.append(sample)
            while samples[0].time_s < now_s - self._kept_s:
                samples.popleft()
        return found


def _look(pid: int, now_s: float) -> Sample | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            memory = process.memory_info()
            return Sample(now_s, pid, memory.rss, getattr(memory, "shared", 0), process.num_fds())
    except (psutil.Error, OSError, ValueError):
        return None


def free_resources(path: Path) -> FreeResources:
    """path: the run directory, which need not exist yet."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    shm = Path("/dev/shm")
    available = psutil.virtual_memory().available
    within_limit = container_headroom()
    return FreeResources(
        disk_bytes=shutil.disk_usage(there).free,
        memory_bytes=available if within_limit is None else min(available, within_limit),
        shm_bytes=shutil.disk_usage(shm).free if shm.is_dir() else None,
    )


def container_headroom(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes until the tightest memory limit of cgroup v2 above this process; None without a limit. Cached files that the
    kernel would give back do not count as used."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return None
    leaf = root / own.strip("/")
    folders = [leaf, *(folder for folder in leaf.parents if folder.is_relative_to(root))]
    rooms = [room for folder in folders if (room := _headroom(folder)) is not None]
    return min(rooms, default=None)


def _headroom(group: Path) -> int | None:
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
