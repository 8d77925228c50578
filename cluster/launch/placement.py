"""Who gets what: from resources and configuration to bundles, before anything starts. Pure.

 nodes + RunConfig -> place -> Placement(bundles, shortages, notes)    `memr plan` prints it, ray_handles.py follows it

A bundle lies on one node (free_capacity.py).
Loads without torch and Ray.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from actors.config import ActorSettings
from cluster.config.run_config import RunConfig
from cluster.launch.free_capacity import PER_GPU, NodeRoom, fill, rooms_of, share_of, take_up_to
from memory_service.encoder_name import is_hash

LEAST_PROCESS_BYTES = 96 * 2**20
"""A process of the run before it has loaded a model: Python, numpy, pyarrow and Ray have 100 MiB of their own (measured)."""
MAX_NODES_NAMED = 8
TRIED_SHARES = 8
"""Ways to divide a GPU, from the fewest processes on it that may do."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine as Ray counts it. resources: names of special resources that it offers (a GPU type, say)."""

    node_id: str
    cpus: float
    gpus: float
    memory_bytes: int = 0
    resources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Bundle:
    """What one process of a part needs, on one node; `count` of them. cpus: its threads."""

    part: str
    cpus: float
    gpus: float
    node_resource: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """shortages: what keeps the run from starting. notes: what only makes it slower."""

    bundles: tuple[Bundle, ...]
    shortages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def bundle(self, part: str) -> Bundle:
        return next(bundle for bundle in self.bundles if bundle.part == part)


def place(config: RunConfig, nodes: Sequence[Node]) -> Placement:
    """nodes: at least one. Several nodes must have the CPUs that are asked for; on a single machine threads share what there is."""
    gpus = sum(node.gpus for node in nodes)
    bundles = tuple(_bundles(config, has_gpu=gpus > 0))
    if crowd := _beyond_memory(bundles, nodes):
        return Placement(bundles, (crowd,))
    if _gpus_of(bundles) > gpus > 0:
        bundles = _shared(config, bundles, nodes)
    rooms = rooms_of(nodes)
    shortages = _shortages(bundles, nodes, rooms)
    threads, cores = _threads_at_once(config, bundles), sum(node.cpus for node in nodes)
    shares = threads > cores and len(nodes) == 1
    notes = (
        [f"CPU oversubscribed: {threads:g} threads on {cores:g} cores, slower with the same results"] if shares else []
    )
    notes += _crowded(config, bundles)
    if not shortages:
        notes += _idle_gpus(config, bundles, rooms, gpus)
    return Placement(bundles, tuple(shortages), tuple(notes))


def _gpus_of(bundles: Sequence[Bundle]) -> float:
    """Returns what they ask for in all, in Ray's ten-thousandths: ten shares of 0.1 are one GPU."""
    return round(sum(b.gpus * b.count for b in bundles) * PER_GPU) / PER_GPU


def _threads_at_once(config: RunConfig, bundles: Sequence[Bundle]) -> float:
    """Without lag the learner computes while the others wait for it, and they while it waits for them."""
    learner = sum(b.cpus * b.count for b in bundles if b.part == "learner")
    others = sum(b.cpus * b.count for b in bundles) - learner
    return max(learner, others) if config.learner.max_policy_lag == 0 else learner + others


def shortages_of(placement: Placement, counts: Mapping[str, int], nodes: Sequence[Node]) -> list[str]:
    """What keeps so many workers, by kind, from running beside what runs already: each with what its kind was given."""
    bundles = [replace(b, count=counts.get(b.part, b.count)) for b in placement.bundles]
    crowd = _beyond_memory(bundles, nodes)
    return [crowd] if crowd else _shortages(bundles, nodes, rooms_of(nodes))


def _shortages(bundles: Sequence[Bundle], nodes: Sequence[Node], rooms: Sequence[NodeRoom]) -> list[str]:
    """Takes from `rooms` what is placed."""
    return _gpu_shortage(bundles, nodes) or [_why(bundle, placed, nodes) for bundle, placed in fill(bundles, rooms)]


def _beyond_memory(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> str:
    """More processes than there is memory for Python and Ray alone, models not counted; empty where there are not."""
    there = sum(node.memory_bytes for node in nodes)
    processes = sum(b.count for b in bundles)
    fit = there // LEAST_PROCESS_BYTES
    if not all(node.memory_bytes for node in nodes) or processes <= fit:
        return ""
    most = max(bundles, key=lambda b: b.count)
    return (
        f"{processes:,} processes ({most.part}: {most.count:,}) want {LEAST_PROCESS_BYTES // 2**20} MiB each without any model, "
        f"and {there / 2**30:.0f} GiB of memory is all there is: room for {fit:,} at most. Ask for fewer workers"
    )


def placement_rows(placement: Placement) -> list[tuple[str, str]]:
    """Part and needs, ready to show."""
    rows = []
    for bundle in placement.bundles:
        needs = f"{bundle.count} x {bundle.cpus:g} CPU" + (f", {bundle.gpus:g} GPU" if bundle.gpus else "")
        rows.append((bundle.part, needs + (f", on '{bundle.node_resource}'" if bundle.node_resource else "")))
    return rows


def _bundles(config: RunConfig, *, has_gpu: bool) -> Iterator[Bundle]:
    learner, memory, actors = config.learner, config.memory, config.actors
    learner_gpus = (learner.gpus or 1.0) if _on_gpu(learner.device, has_gpu) and not config.model.scripted else 0
    yield Bundle("learner", learner.torch_threads, learner_gpus)
    if memory.enabled:
        encodes_there = memory.device == "cuda" and not is_hash(memory.encoder)
        yield Bundle("memory", memory.torch_threads, memory.gpus if encodes_there else 0)
    resources = {pool.name: pool.node_resource for pool in actors.pools}
    counts = {pool.name: pool.num_workers for pool in actors.pools}
    for name, kind in actors.by_pool.items():
        count = counts.get(name, kind.num_workers)
        yield Bundle(
            name, kind.torch_threads, _worker_gpus(kind, has_gpu, config.model.scripted), resources.get(name), count
        )


def _shared(config: RunConfig, bundles: Sequence[Bundle], nodes: Sequence[Node]) -> tuple[Bundle, ...]:
    """Fewer GPUs than processes: those that said nothing of GPUs share them. vLLM does not, as it takes its memory whole."""
    silent = {name for name, kind in config.actors.by_pool.items() if _may_share(kind)}
    if config.learner.device == "auto" and config.learner.gpus is None:
        silent.add("learner")
    sharing = sum(b.count for b in bundles if b.part in silent and b.gpus)
    if not sharing:
        return tuple(bundles)
    tries = (_with_share(bundles, silent, share) for share in _shares(bundles, silent, sharing, nodes))
    return next((found for found in tries if not fill(found, rooms_of(nodes))), tuple(bundles))


def _shares(bundles: Sequence[Bundle], silent: Collection[str], sharing: int, nodes: Sequence[Node]) -> list[float]:
    """What each of those that share may get, the largest first: a GPU divided among so many, whole or beside shares that
    others were promised."""
    gpus = sum(node.gpus for node in nodes)
    promised = [b.gpus for b in bundles if b.part not in silent and 0 < b.gpus < 1 for _ in range(min(b.count, 8))]
    fewest = max(1, math.ceil(sharing / gpus))
    beside = {0.0, *promised, sum(promised)}
    found = {share_of(fixed, k) for fixed in beside if fixed < 1 for k in range(fewest, fewest + TRIED_SHARES)}
    return sorted((share for share in found if share > 0), reverse=True)


def _with_share(bundles: Sequence[Bundle], silent: Collection[str], share: float) -> tuple[Bundle, ...]:
    return tuple(replace(b, gpus=share) if b.part in silent and b.gpus else b for b in bundles)


def _may_share(kind: ActorSettings) -> bool:
    return kind.engine_kind.shares_gpu and kind.device == "auto" and kind.gpus_per_worker is None


def _on_gpu(device: str, has_gpu: bool) -> bool:
    return device == "cuda" or (device == "auto" and has_gpu)


def _worker_gpus(kind: ActorSettings, has_gpu: bool, scripted: bool) -> float:
    if scripted or not kind.engine_kind.uses_device or not _on_gpu(kind.device, has_gpu):
        return 0
    if kind.gpus_per_worker is not None:
        return kind.gpus_per_worker
    return kind.vllm.tensor_parallel_size if kind.engine_kind.tensor_parallel else 1


def _gpu_shortage(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> list[str]:
    needed, there = _gpus_of(bundles), sum(node.gpus for node in nodes)
    if needed <= there:
        return []
    parts = ", ".join(f"{b.part}: {b.count} x {b.gpus:g}" for b in bundles if b.gpus and b.count)
    workers = next((b for b in reversed(bundles) if b.gpus and b.part not in ("learner", "memory")), None)
    fixed = needed - workers.gpus * workers.count if workers else needed
    fit = int((there - fixed) // workers.gpus) if workers else 0
    fewer = f"lower the workers of '{workers.part}' to {fit}" if workers and fit > 0 else ""
    advice = fewer or "set device = 'cpu' for one of the parts"
    return [
        f"needs {needed:g} GPUs ({parts}), the cluster has {there:g}: {advice}, share GPUs by shares below 1 in "
        "actors.gpus_per_worker and learner.gpus, or add nodes"
    ]


def _crowded(config: RunConfig, bundles: Sequence[Bundle]) -> Iterator[str]:
    """vLLM takes its share of a card's memory whatever Ray counts."""
    for bundle in bundles:
        kind = config.actors.by_pool.get(bundle.part)
        share = kind.vllm.gpu_memory_utilization if kind and kind.engine_kind.tensor_parallel else 0.0
        if 0 < bundle.gpus < 1 and share > bundle.gpus:
            yield (
                f"a '{bundle.part}' worker has {bundle.gpus:g} of a GPU and wants {share:.0%} of its memory: it will not start "
                f"beside others on the card. Set actors.vllm.gpu_memory_utilization to {bundle.gpus:g} or less"
            )


def _idle_gpus(config: RunConfig, bundles: Sequence[Bundle], rooms: Sequence[NodeRoom], gpus: float) -> Iterator[str]:
    """What the run leaves unused, and how many workers more would use it."""
    idle = [(room.node_id, room.idle_gpus) for room in rooms if room.idle_gpus]
    if not idle:
        return
    where = ", ".join(f"{count} on {name}" for name, count in idle[:MAX_NODES_NAMED])
    where += f" and {len(idle) - MAX_NODES_NAMED} nodes more" if len(idle) > MAX_NODES_NAMED else ""
    yield f"{sum(count for _, count in idle)} of {gpus:g} GPUs are idle ({where}): {_use_of(config, bundles, rooms)}"


def _use_of(config: RunConfig, bundles: Sequence[Bundle], rooms: Sequence[NodeRoom]) -> str:
    """Worker by worker, as they would be placed."""
    kind = next((b for b in bundles if b.part in config.actors.by_pool and b.gpus), None)
    if kind is None:
        used = [b.part for b in bundles if b.gpus]
        if not used:
            return "nothing of this configuration runs on a GPU: see device and engine in [actors] and [learner]"
        return f"of this configuration only {' and '.join(used)} run on a GPU, the workers do not: see actors.device"
    more = take_up_to(None, kind, rooms)
    if not more:
        return f"no further '{kind.part}' worker fits, which needs {kind.gpus:g} GPU and {kind.cpus:g} CPU on one node"
    pool = f"num_workers of pool '{kind.part}'" if config.actors.pools else "actors.num_workers"
    return f"raise {pool} from {kind.count} to {kind.count + more}, or ask for fewer GPUs"


def _why(bundle: Bundle, placed: int, nodes: Sequence[Node]) -> str:
    what = f"one '{bundle.part}' process needs {bundle.gpus:g} GPU and {bundle.cpus:g} CPU on one node"
    offering = [node for node in nodes if not bundle.node_resource or bundle.node_resource in node.resources]
    if not offering:
        return f"{what} that offers '{bundle.node_resource}', and no node does: start one with ray start --resources"
    most = max(node.gpus for node in offering)
    if most < bundle.gpus:
        return f"{what}, the largest has {most:g} GPUs: lower actors.vllm.tensor_parallel_size, or add a larger node"
    return f"{what}; {placed} of {bundle.count} fit beside the others: start fewer, or add nodes"
