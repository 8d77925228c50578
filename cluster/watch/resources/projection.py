"""What a run will need of disk, memory and shared memory, before it is missing. Pure: measured facts and settings in,
bytes and sentences out.

    Footprint (measured, or guessed from the adapter) + Scale (settings) -> Projection -> shortages -> sentences

Upper bounds: every kept checkpoint counts as large as the last one will be. Left out, for they are small: config, status,
reports and the ledger inside a checkpoint (about 30 bytes a problem).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.config.turn_tokens import rollout_tokens
from memory_service.embedding_cache import MAX_TEXTS

SPARE_SHARE = 0.1
"""Groups that were dropped or tried again are logged too."""

TOKEN_TEXT_BYTES = 4
EPISODE_OBJECT_BYTES, CACHED_TEXT_OBJECT_BYTES = 400, 200
"""Beside vector and text: names, sets, lists, array headers. Measured, tests/unit/memory_service/test_memory_holds.py."""

_KNOBS = {
    "checkpoints": "lower cluster.checkpoints_kept (at least 2)",
    "adapters": "lower cluster.adapters_on_disk",
    "log": "lower learner.num_updates",
    "rollouts": "lower learner.num_updates",
    "metrics": "lower learner.num_updates",
    "buffer": "lower cluster.groups_per_batch or learner.max_policy_lag",
    "episodes": "lower memory.max_queries or memory.max_responses_per_query",
    "object store": "lower cluster.object_store_bytes",
}


@dataclass(frozen=True, slots=True)
class Footprint:
    """What things cost, in bytes. checkpoint_bytes: a whole one (learner, memory snapshot, ledger) that held
    checkpoint_episodes. metrics_bytes_per_update: metrics.jsonl and TensorBoard. log_bytes_per_group: log/ and
    ledger/events.jsonl."""

    checkpoint_bytes: int
    adapter_bytes: int
    log_bytes_per_group: float
    rollouts_bytes_per_group: float
    metrics_bytes_per_update: float
    checkpoint_episodes: int = 0
    bytes_per_episode: float = 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything the settings ask for. max_episodes: what memory may hold at the end. object_store_bytes: 0
    where the run joins a cluster that has its own."""

    num_updates: int
    groups_per_batch: int
    checkpoints_kept: int
    adapters_on_disk: int
    max_policy_lag: int
    max_episodes: int
    buffer_bytes: int
    object_store_bytes: int


@dataclass(frozen=True, slots=True)
class Projection:
    """Bytes at the end of the run. disk: by folder of the run. memory: what its processes will take beyond what they
    hold once models are loaded, shm included."""

    disk: Mapping[str, int]
    memory: Mapping[str, int]
    checkpoints: int
    last_checkpoint_bytes: int

    @property
    def disk_bytes(self) -> int:
        return sum(self.disk.values())

    @property
    def memory_bytes(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class FreeResources:
    """Bytes that are free now. memory_bytes: what new processes may take, within the container's limit. shm_bytes: None
    where there is no /dev/shm."""

    disk_bytes: int
    memory_bytes: int
    shm_bytes: int | None


def scale_of(config: RunConfig, *, local_ray: bool = True) -> Scale:
    """local_ray: memr starts Ray itself, with an object store of cluster.object_store_bytes."""
    return Scale(
        num_updates=config.learner.num_updates,
        groups_per_batch=config.cluster.groups_per_batch,
        checkpoints_kept=config.cluster.checkpoints_kept,
        adapters_on_disk=config.cluster.adapters_on_disk,
        max_policy_lag=config.learner.max_policy_lag,
        max_episodes=held_episodes(config),
        buffer_bytes=config.cluster.buffer_bytes,
        object_store_bytes=config.cluster.object_store_bytes if local_ray else 0,
    )


def held_episodes(config: RunConfig) -> int:
    """What memory may hold at the end: every rollout, unless its bounds are nearer."""
    memory = config.memory
    rollouts = config.learner.num_updates * config.cluster.groups_per_batch * config.actors.rollouts_per_group
    bound = 2 * memory.max_queries * memory.max_responses_per_query  # successes and failures, a memory each
    return min(rollouts, bound) if memory.enabled else 0


def memory_bytes(config: RunConfig, encoder_dimension: int = 384) -> int:
    """What memory takes for `held_episodes`, all texts different and as long as they may be.

    An episode is a vector and its text, of all turns. Each text that was embedded, a question too, lies in the cache with another vector,
    up to MAX_TEXTS of them; a question has one vector with its responses and one in the index of either memory."""
    vector, text = 4 * encoder_dimension, TOKEN_TEXT_BYTES * rollout_tokens(config)
    episodes = held_episodes(config)
    questions = min(episodes // config.actors.rollouts_per_group, 2 * config.memory.max_queries)
    cached = min(episodes + questions, MAX_TEXTS)
    return (
        episodes * (vector + text + EPISODE_OBJECT_BYTES)
        + questions * (3 * vector + EPISODE_OBJECT_BYTES)
        + cached * (vector + CACHED_TEXT_OBJECT_BYTES)
    )


def first_footprint(adapter_bytes: int, config: RunConfig, encoder_dimension: int = 384) -> Footprint:
    """A guess before anything was measured, on the large side; a new run has no checkpoint yet.

    The learner keeps weights and two moments in float32 where the adapter has two bytes: 6 times the adapter. A token is
    an id (4), a log-prob (4), a mask (1) and text (4). An episode is what it takes in memory.
    A group in the log carries its Arrow schema.
    """
    group_bytes = config.actors.rollouts_per_group * (rollout_tokens(config) * 13 + 500)
    return Footprint(
        checkpoint_bytes=6 * adapter_bytes,
        adapter_bytes=adapter_bytes,
        log_bytes_per_group=group_bytes + 6000,
        rollouts_bytes_per_group=group_bytes,
        metrics_bytes_per_update=6000,
        bytes_per_episode=memory_bytes(config, encoder_dimension) / max(1, held_episodes(config)),
    )


def project(footprint: Footprint, scale: Scale) -> Projection:
    """Returns the bytes on disk and in memory that a run of this scale reaches, by what takes them."""
    groups = scale.num_updates * scale.groups_per_batch
    checkpoints = min(scale.checkpoints_kept, scale.num_updates) + 1  # the new one is whole before an old one goes
    last_checkpoint = checkpoint_bytes(footprint, scale.max_episodes)
    growth = last_checkpoint - footprint.checkpoint_bytes
    return Projection(
        disk={
            "checkpoints": checkpoints * last_checkpoint,
            "adapters": _most_adapters(scale) * footprint.adapter_bytes,
            "log": round(groups * footprint.log_bytes_per_group * (1 + SPARE_SHARE)),
            "rollouts": round(groups * footprint.rollouts_bytes_per_group * (1 + SPARE_SHARE)),
            "metrics": round(scale.num_updates * footprint.metrics_bytes_per_update),
        },
        memory={
            "buffer": min(scale.buffer_bytes, _buffered_bytes(footprint, scale)),
            "episodes": growth,
            "object store": scale.object_store_bytes,
        },
        checkpoints=checkpoints,
        last_checkpoint_bytes=last_checkpoint,
    )


def checkpoint_bytes(footprint: Footprint, episodes: int) -> int:
    """A whole checkpoint once memory holds so many episodes; never less than the measured one."""
    more = max(0, episodes - footprint.checkpoint_episodes)
    return footprint.checkpoint_bytes + round(more * footprint.bytes_per_episode)


def shortages(
    projection: Projection, free: FreeResources, *, present_bytes: int = 0, reserve_bytes: int = 0
) -> list[str]:
    """What will not fit, with the largest part and its knob; empty where all is well. present_bytes: what the run has on
    disk already (a resumed one). reserve_bytes: what must stay free, the mark at which the run would stop."""
    found = []
    disk = max(0, projection.disk_bytes - present_bytes)
    if disk + reserve_bytes > free.disk_bytes:
        found.append(
            f"disk: the run may write {size(disk)} more{_and_reserve(reserve_bytes)}, {size(free.disk_bytes)} are free: "
            f"{_most(projection.disk)}, or set run.directory to a larger disk"
        )
    if projection.memory_bytes > free.memory_bytes:
        found.append(
            f"memory: the run may take {size(projection.memory_bytes)} more, {size(free.memory_bytes)} are available: "
            f"{_most(projection.memory)}"
        )
    return found


def shm_shortage(needed_bytes: int, free: FreeResources) -> str:
    """Of Ray's object store, to be asked before Ray takes it; empty where it fits."""
    if free.shm_bytes is None or needed_bytes <= free.shm_bytes:
        return ""
    return (
        f"shared memory: cluster.object_store_bytes is {size(needed_bytes)}, /dev/shm has {size(free.shm_bytes)} free: "
        f"lower cluster.object_store_bytes, or start the container with --shm-size={-(-needed_bytes * 5 // 4 // 2**20)}m"
    )


def size(number: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _most_adapters(scale: Scale) -> int:
    """The newest, those that work under way needs, and one each for the checkpoint, an evaluation and the version being
    written; version 0 included, a run has one more than updates."""
    return min(max(scale.adapters_on_disk, scale.max_policy_lag + 1) + 3, scale.num_updates + 1)


def _buffered_bytes(footprint: Footprint, scale: Scale) -> int:
    return round((scale.max_policy_lag + 1) * scale.groups_per_batch * footprint.log_bytes_per_group)


def _and_reserve(reserve_bytes: int) -> str:
    return f" and {size(reserve_bytes)} must stay free" if reserve_bytes else ""


def _most(parts: Mapping[str, int]) -> str:
    largest = max(parts, key=lambda name: parts[name])
    return f"most is for {largest} ({size(parts[largest])}); {_KNOBS[largest]}"
