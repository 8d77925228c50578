"""Keeps account of each node's free CPUs and GPUs while processes are placed: first fit, the largest first. Pure.

A share of a GPU (below 1) comes from a single GPU, and Ray counts in ten-thousandths.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.launch.placement import Bundle, Node

PER_GPU = 10_000
"""Shares of a GPU are whole numbers of these, in Ray's counting."""
_EPSILON = 1e-9


@dataclass(slots=True)
class NodeRoom:
    """cpus: None where they are not counted: on a single machine threads share what there is."""

    node_id: str
    cpus: float | None
    gpus: list[float]  # what is left of each GPU
    resources: frozenset[str] = field(default_factory=frozenset)

    def take(self, bundle: "Bundle") -> bool:
        """Room for one process of the bundle, taken where there is any."""
        chosen = self._gpus_for(bundle.gpus)
        lacks_cpus = self.cpus is not None and bundle.cpus > self.cpus
        if chosen is None or lacks_cpus or (bundle.node_resource and bundle.node_resource not in self.resources):
            return False
        for gpu in chosen:
            self.gpus[gpu] -= min(1.0, bundle.gpus)
        if self.cpus is not None:
            self.cpus -= bundle.cpus
        return True

    @property
    def idle_gpus(self) -> int:
        return sum(left >= 1 - _EPSILON for left in self.gpus)

    def _gpus_for(self, wanted: float) -> list[int] | None:
        """Indices of whole GPUs, or of the fullest one that has room for a share."""
        if wanted <= 0:
            return []
        if wanted < 1:
            rooms = [(left, i) for i, left in enumerate(self.gpus) if left >= wanted - _EPSILON]
            return [min(rooms)[1]] if rooms else None
        whole = [i for i, left in enumerate(self.gpus) if left >= 1 - _EPSILON]
        return whole[: int(wanted)] if len(whole) >= wanted else None


def rooms_of(nodes: Sequence["Node"]) -> list[NodeRoom]:
    """Nothing is placed yet."""
    several = len(nodes) > 1
    return [
        NodeRoom(node.node_id, node.cpus if several else None, [1.0] * int(node.gpus), node.resources) for node in nodes
    ]


def fill(bundles: Sequence["Bundle"], rooms: Sequence[NodeRoom]) -> list[tuple["Bundle", int]]:
    """Takes from `rooms` what is placed; the bundles of which not every process was, with how many were."""
    missing = []
    for bundle in sorted(bundles, key=lambda b: (-b.gpus, b.node_resource is None, -b.cpus)):
        # A process without GPU goes where there is none, if it can: GPU nodes are kept for those that need them.
        order = rooms if bundle.gpus else sorted(rooms, key=lambda room: len(room.gpus))
        placed = take_up_to(bundle.count, bundle, order)
        if placed < bundle.count:
            missing.append((bundle, placed))
    return missing


def take_up_to(count: int | None, bundle: "Bundle", rooms: Iterable[NodeRoom]) -> int:
    """How many processes of the bundle found room; count None: as many as do, of a bundle that takes GPUs. Where one found
    none, no later one does."""
    placed = 0
    for room in rooms:
        while (count is None or placed < count) and room.take(bundle):
            placed += 1
    return placed


def share_of(promised: float, processes: int) -> float:
    """Of what is `promised` of a GPU to others leaves, for each of so many processes; rounded down, so that all of them fit."""
    return math.floor((1 - promised) / processes * PER_GPU + 1e-6) / PER_GPU
