"""What there is to place on: this machine, a Ray cluster, or nodes that somebody thinks of (`memr plan --nodes 2x8`)."""

import os
import re

import psutil

from cluster.placement import Node
from contracts.errors import ConfigError


def resources_of(address: str | None, imagined: str | None) -> tuple[Node, ...]:
    """imagined: "NxG", N nodes of G GPUs. Raises ConfigError for another form, RunStopped for an unreachable cluster."""
    if imagined is not None:
        return _imagined(imagined)
    if address is None:
        return (this_machine(),)
    # Imported here: a plan for this machine starts without Ray.
    import ray

    from cluster.ray_session import cluster_nodes, connect

    connect(address)
    try:
        return cluster_nodes()
    finally:
        ray.shutdown()


def this_machine() -> Node:
    import torch

    return Node(
        node_id="this machine",
        cpus=float(os.cpu_count() or 1),
        gpus=float(torch.cuda.device_count()),
        memory_bytes=psutil.virtual_memory().total,
    )


def _imagined(text: str) -> tuple[Node, ...]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or int(found[1]) < 1:
        raise ConfigError(f"--nodes {text}: write NxG, for example 2x8 for two nodes of eight GPUs each")
    gpus = int(found[2])
    return tuple(Node(f"node {i}", float(max(8, 12 * gpus)), float(gpus), 2**36) for i in range(int(found[1])))
