"""The Ray that a run lives in: one of its own on this machine, or a cluster that is there already.

Its own: loopback (environment.py), token authentication, no dashboard; ended with the run. `ray.shutdown` ends what
`ray.init` started here, and no other Ray on the machine. A cluster's nodes have memr installed (the image), or get it
from here with `ship_code`; processes that vLLM starts inherit either.
"""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.config import RunConfig
from cluster.parts import AdapterRef
from cluster.placement import Node
from contracts.adapter import Adapter
from contracts.errors import RunStopped

PACKAGES = ("contracts", "tasks", "actors", "memory_service", "learner", "cluster")
_ORDINARY = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


@dataclass(frozen=True, slots=True)
class Session:
    """owned: the Ray was started for this run, so logical CPUs need not be reserved. driver_node_id: where we are."""

    owned: bool
    nodes: tuple[Node, ...]
    driver_node_id: str


@contextmanager
def ray_session(config: RunConfig, address: str | None = None, *, ship_code: bool = False) -> Iterator[Session]:
    """Raises RunStopped, with Ray's own words, if it does not start or cannot be joined."""
    if ray.is_initialized():  # a caller (a test, a notebook) has one: use it and leave it alone
        yield _session(owned=address is None)
        return
    if address is None:
        _start(config)
    else:
        connect(address, ship_code=ship_code)
    try:
        yield _session(owned=address is None)
    finally:
        ray.shutdown()


def share(adapter: Adapter) -> AdapterRef:
    """Put an adapter into the object store once; every node fetches it once."""
    reference: Any = ray.put(adapter)
    return reference


def cluster_nodes() -> tuple[Node, ...]:
    """The nodes that are alive, as the plan sees them."""
    entries: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return tuple(_node(entry) for entry in entries if entry["Alive"])


def connect(address: str, *, ship_code: bool = False) -> None:
    """Join a cluster. Raises RunStopped."""
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            runtime_env={"py_modules": [_folder(name) for name in PACKAGES]} if ship_code else None,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise RunStopped(
            f"cannot join the Ray cluster at {address}: {error}. Is its head running and reachable (`ray status`), is "
            "Ray's version the same there, and is its token here (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)?"
        ) from error


def _start(config: RunConfig) -> None:
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            num_cpus=4,  # nothing reserves CPUs here; Ray would keep an idle process ready for each
            object_store_memory=config.cluster.object_store_bytes,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise RunStopped(
            f"Ray did not start: {error}. Check free memory, /dev/shm and disk space with `memr doctor`; a smaller "
            "cluster.object_store_bytes may help"
        ) from error


def _session(*, owned: bool) -> Session:
    return Session(owned, cluster_nodes(), ray.get_runtime_context().get_node_id())


def _node(entry: dict[str, Any]) -> Node:
    resources: dict[str, float] = entry["Resources"]
    special = frozenset(name for name in resources if name not in _ORDINARY and not name.startswith("node:"))
    return Node(
        node_id=entry["NodeID"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_bytes=int(resources.get("memory", 0)),
        resources=special,
    )


def _folder(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent)
