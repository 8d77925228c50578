"""Who gets what: from resources and configuration to bundles, before anything starts. Pure.

 nodes + RunConfig -> place -> Placement(bundles, shortages, notes)    `memr plan` prints it, ray_parts.py follows it

A bundle lies on one node; a share of a GPU (below 1) comes from a single GPU. First fit, the hungriest bundle first.
Loads without torch and Ray.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from actors.config import ActorSettings
from cluster.config import RunConfig


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
    if sum(b.gpus * b.count for b in bundles) > gpus > 0:
        bundles = tuple(_shared(config, bundles, gpus))
    several = len(nodes) > 1
    free = [_Free(node.node_id, node.cpus, [1.0] * int(node.gpus), node.resources) for node in nodes]
    shortages = _gpu_shortage(bundles, nodes) or [*_unplaced(bundles, nodes, free, count_cpus=several)]
    threads, cores = _threads_at_once(config, bundles), sum(node.cpus for node in nodes)
    notes = [f"{threads:g} threads share {cores:g} cores: slower, not wrong"] if threads > cores and not several else []
    notes += _crowded(config, bundles)
    if not shortages:
        notes += _idle_gpus(config, bundles, free, gpus)
    return Placement(bundles, tuple(shortages), tuple(notes))


def _threads_at_once(config: RunConfig, bundles: Sequence[Bundle]) -> float:
    """Without lag the learner computes while the others wait for it, and they while it waits for them."""
    learner = sum(b.cpus * b.count for b in bundles if b.part == "learner")
    others = sum(b.cpus * b.count for b in bundles) - learner
    return max(learner, others) if config.learner.max_policy_lag == 0 else learner + others


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
        yield Bundle("memory", memory.torch_threads, memory.gpus if memory.device == "cuda" else 0)
    resources = {pool.name: pool.node_resource for pool in actors.pools}
    counts = {pool.name: pool.num_workers for pool in actors.pools}
    for name, kind in actors.kinds.items():
        count = counts.get(name, kind.num_workers)
        yield Bundle(
            name, kind.torch_threads, _worker_gpus(kind, has_gpu, config.model.scripted), resources.get(name), count
        )


def _shared(config: RunConfig, bundles: Sequence[Bundle], gpus: float) -> Iterator[Bundle]:
    """Fewer GPUs than processes: those that said nothing of GPUs share them. vLLM does not, as it takes its memory whole."""
    silent = {name for name, kind in config.actors.kinds.items() if _may_share(kind)}
    if config.learner.device == "auto" and config.learner.gpus is None:
        silent.add("learner")
    sharing = sum(b.count for b in bundles if b.part in silent and b.gpus)
    left = gpus - sum(b.gpus * b.count for b in bundles if b.part not in silent)
    per_gpu = math.ceil(sharing / max(1, int(left))) if sharing else 1
    for bundle in bundles:
        yield replace(bundle, gpus=round(1 / per_gpu, 4)) if bundle.part in silent and bundle.gpus else bundle


def _may_share(kind: ActorSettings) -> bool:
    return kind.engine == "transformers" and kind.device == "auto" and kind.gpus_per_worker is None


def _on_gpu(device: str, has_gpu: bool) -> bool:
    return device == "cuda" or (device == "auto" and has_gpu)


def _worker_gpus(kind: ActorSettings, has_gpu: bool, scripted: bool) -> float:
    if scripted or kind.engine == "scripted" or not _on_gpu(kind.device, has_gpu):
        return 0
    if kind.gpus_per_worker is not None:
        return kind.gpus_per_worker
    return kind.vllm.tensor_parallel_size if kind.engine == "vllm" else 1


def _gpu_shortage(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> list[str]:
    needed, there = sum(b.gpus * b.count for b in bundles), sum(node.gpus for node in nodes)
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
        kind = config.actors.kinds.get(bundle.part)
        share = kind.vllm.gpu_memory_utilization if kind and kind.engine == "vllm" else 0.0
        if 0 < bundle.gpus < 1 and share > bundle.gpus:
            yield (
                f"a '{bundle.part}' worker has {bundle.gpus:g} of a GPU and wants {share:.0%} of its memory: it will not start "
                f"beside others on the card. Set actors.vllm.gpu_memory_utilization to {bundle.gpus:g} or less"
            )


def _idle_gpus(config: RunConfig, bundles: Sequence[Bundle], free: Sequence["_Free"], gpus: float) -> Iterator[str]:
    """What the run leaves unused, and how many workers more would use it."""
    idle = [(node.node_id, sum(left >= 1 - 1e-9 for left in node.gpus)) for node in free]
    total = sum(count for _, count in idle)
    if not total:
        return
    where = ", ".join(f"{count} on {name}" for name, count in idle if count)
    yield f"{total} of {gpus:g} GPUs are idle ({where}): {_use_of(config, bundles, free)}"


def _use_of(config: RunConfig, bundles: Sequence[Bundle], free: Sequence["_Free"]) -> str:
    """Worker by worker, as they would be placed."""
    kind = next((b for b in bundles if b.part in config.actors.kinds and b.gpus), None)
    if kind is None:
        return "nothing of this configuration runs on a GPU: see device and engine in [actors] and [learner]"
    more = 0
    while any(node.take(kind, count_cpus=len(free) > 1) for node in free):
        more += 1
    if not more:
        return f"no further '{kind.part}' worker fits, which needs {kind.gpus:g} GPU and {kind.cpus:g} CPU on one node"
    pool = f"num_workers of pool '{kind.part}'" if config.actors.pools else "actors.num_workers"
    return f"raise {pool} from {kind.count} to {kind.count + more}, or ask for fewer GPUs"


@dataclass(slots=True)
class _Free:
    node_id: str
    cpus: float
    gpus: list[float]  # what is left of each GPU
    resources: frozenset[str] = field(default_factory=frozenset)

    def take(self, bundle: Bundle, *, count_cpus: bool) -> bool:
        chosen = self._gpus_for(bundle.gpus)
        lacks_cpus = count_cpus and bundle.cpus > self.cpus
        if chosen is None or lacks_cpus or (bundle.node_resource and bundle.node_resource not in self.resources):
            return False
        for gpu in chosen:
            self.gpus[gpu] -= min(1.0, bundle.gpus)
        self.cpus -= bundle.cpus
        return True

    def _gpus_for(self, wanted: float) -> list[int] | None:
        """Indices of whole GPUs, or of the fullest one that has room for a share."""
        if wanted <= 0:
            return []
        if wanted < 1:
            rooms = [(left, i) for i, left in enumerate(self.gpus) if left >= wanted - 1e-9]
            return [min(rooms)[1]] if rooms else None
        whole = [i for i, left in enumerate(self.gpus) if left >= 1 - 1e-9]
        return whole[: int(wanted)] if len(whole) >= wanted else None


def _unplaced(
    bundles: Sequence[Bundle], nodes: Sequence[Node], free: Sequence[_Free], *, count_cpus: bool
) -> Iterator[str]:
    """Takes from `free` what is placed."""
    for bundle in sorted(bundles, key=lambda b: (-b.gpus, b.node_resource is None, -b.cpus)):
        placed = 0
        # A process without GPU goes where there is none, if it can: GPU nodes are kept for those that need them.
        order = free if bundle.gpus else sorted(free, key=lambda node: len(node.gpus))
        while placed < bundle.count and any(node.take(bundle, count_cpus=count_cpus) for node in order):
            placed += 1
        if placed < bundle.count:
            yield _why(bundle, placed, nodes)


def _why(bundle: Bundle, placed: int, nodes: Sequence[Node]) -> str:
    what = f"one '{bundle.part}' process needs {bundle.gpus:g} GPU and {bundle.cpus:g} CPU on one node"
    offering = [node for node in nodes if not bundle.node_resource or bundle.node_resource in node.resources]
    if not offering:
        return f"{what} that offers '{bundle.node_resource}', and no node does: start one with ray start --resources"
    most = max(node.gpus for node in offering)
    if most < bundle.gpus:
        return f"{what}, the largest has {most:g} GPUs: lower actors.vllm.tensor_parallel_size, or add a larger node"
    return f"{what}; {placed} of {bundle.count} fit beside the others: start fewer, or add nodes"
