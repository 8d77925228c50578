"""What there is to place on: this machine, a Ray cluster, or nodes that somebody thinks of (`memr plan --nodes 2x8`)."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import psutil

from cluster.config.run_config import RunConfig
from cluster.launch.placement import Node
from contracts.errors import ConfigError
from loading.device import DRIVER, cards, old_driver

MAX_NODES, MAX_GPUS = 10_000, 64
"""Of a cluster that somebody thinks of; Ray itself is tested with a few thousand nodes."""
_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


def resources_of(address: str | None, imagined: str | None) -> tuple[Node, ...]:
    """imagined: "NxG", N nodes of G GPUs. Raises ConfigError for another form, RunStopped for an unreachable cluster."""
    if imagined is not None and address is not None:
        raise ConfigError(
            "--address and --nodes: a plan is for nodes that are there or for others; give one of the two"
        )
    if imagined is not None:
        return _imagined(imagined)
    if address is None:
        return (this_machine(),)
    # Imported here: a plan for this machine starts without Ray.
    import ray

    from cluster.launch.ray_session import cluster_nodes, connect

    connect(address)
    try:
        return cluster_nodes()
    finally:
        ray.shutdown()


def this_machine() -> Node:
    """Cards by their device files: what torch makes of them is asked when a run starts."""
    return Node(
        node_id="this machine",
        cpus=float(usable_cores()),
        gpus=float(len(cards())),
        memory_bytes=psutil.virtual_memory().total,
    )


def usable_cores(quota: Path = _CGROUP_CPU) -> int:
    """Cores that this process may run on: its affinity, and what a container's quota amounts to."""
    cores = len(os.sched_getaffinity(0))
    try:
        share, period = quota.read_text().split()
        return max(1, min(cores, math.ceil(int(share) / int(period))))
    except (OSError, ValueError):  # no quota: "max 100000", or no cgroup of version 2
        return cores


def check_driver(config: RunConfig, address: str | None) -> None:
    """`refuse_old_driver` where the run stays on this machine; torch is asked only where there are cards and a model."""
    if address is not None or config.model.scripted or not cards():
        return
    import torch

    refuse_old_driver(config, cards(), usable=torch.cuda.is_available(), built_for=torch.version.cuda)


def refuse_old_driver(
    config: RunConfig, there: Sequence[str], *, usable: bool, built_for: str | None, version: Path = DRIVER
) -> None:
    """Raises ConfigError where the driver is too old for every part that may use a card: once, before they find it out one
    after the other. usable, built_for, there: as `choose_device` has them."""
    why = "" if usable else old_driver(built_for, there, version)
    devices = {"learner.device": config.learner.device, "memory.device": config.memory.device}
    devices |= {f"actors.device of '{name}'": kind.device for name, kind in config.actors.by_pool.items()}
    if why and (meant := [key for key, device in devices.items() if device != "cpu"]):
        raise ConfigError(f"{why}, or set {' and '.join(meant)} to 'cpu' to compute on the CPU anyway")


def refuse_uncounted_cards(config: RunConfig, nodes: Sequence[Node], there: Sequence[str]) -> None:
    """there: cards of this machine. Raises ConfigError where Ray counts none of them and a part that may use one would run
    on the CPU without a word."""
    if not there or config.model.scripted or any(node.gpus for node in nodes):
        return
    parts = [("learner.device", config.learner.device), ("actors.device", config.actors.device)]
    if silent := [key for key, device in parts if device == "auto"]:
        raise ConfigError(
            f"this machine has {len(there)} NVIDIA card(s) ({', '.join(there)}), and Ray counts none: does `nvidia-smi` work "
            f"here? With {' and '.join(silent)} = 'auto' the run would be computed on the CPU; set that to 'cpu' if it shall be"
        )


def _imagined(text: str) -> tuple[Node, ...]:
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.strip())
    if found is None:
        raise ConfigError(f"--nodes {text:.40}: write NxG, for example 2x8 for two nodes of eight GPUs each")
    count, gpus = int(found[1]), int(found[2])
    if not 1 <= count <= MAX_NODES or gpus > MAX_GPUS:
        raise ConfigError(
            f"--nodes {text}: a plan is made for 1 to {MAX_NODES:,} nodes of 0 to {MAX_GPUS} GPUs each, for example 2x8"
        )
    return tuple(Node(f"node {i}", float(max(8, 12 * gpus)), float(gpus), 2**36) for i in range(count))
