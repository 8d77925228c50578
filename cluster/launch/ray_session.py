"""The Ray that a run lives in: one of its own on this machine, or a cluster that is there already.

Its own: loopback (environment.py), token authentication, no dashboard; ended with the run. `ray.shutdown` ends what
`ray.init` started here, and no other Ray on the machine. A cluster's nodes have memr installed (the image), or get it
from here with `ship_code`; processes that vLLM starts inherit either.
"""

import errno
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from cluster.config.run_config import RunConfig
from cluster.handles import AdapterRef
from cluster.launch.nodes import usable_cores
from cluster.launch.placement import Node
from cluster.launch.ray_address import held_back_stderr, refuse_unreachable, why_not_joined
from cluster.watch.resources.pressure import free_resources
from cluster.watch.resources.projection import shm_shortage
from contracts.adapter import Adapter
from contracts.errors import ConfigError, RunStopped
from loading.own_packages import PACKAGES

OPEN_IS_MEANT = "MEMR_JOIN_OPEN_CLUSTER"
_CANNOT_WRITE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
MAX_SOCKET_BYTES = 107
_SOCKET = "/ray/session_2026-11-27_08-41-50_507585_4194304/sockets/plasma_store"
"""The longest name that Ray gives a socket below the folder for temporary files."""
_ASK_WITHOUT_TOKEN = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
"""
HOOK = {"worker_process_setup_hook": "loading.own_packages.put_first"}
"""Ray puts the working directory first on the path of its processes: a user's `tasks/` there would be taken for ours.
Not on a cluster that is joined: where a node lacks memr, Ray would start its processes again and again, without a word."""
_ORDINARY = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


@dataclass(frozen=True, slots=True)
class Session:
    """owned: the Ray was started for this run, so logical CPUs need not be reserved. driver_node_id: where we are."""

    owned: bool
    nodes: tuple[Node, ...]
    driver_node_id: str

    def nodes_now(self) -> tuple[Node, ...]:
        """Of a cluster that was joined, nodes come and go."""
        return self.nodes if self.owned else cluster_nodes()


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
    """Join a cluster. Raises RunStopped, and ConfigError for one that anybody may join."""
    refuse_unreachable(address)
    with held_back_stderr() as told:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env={"py_modules": [_folder(name) for name in PACKAGES]} if ship_code else None,
            )
        except (RuntimeError, OSError, ValueError) as error:
            _refuse_unwritable_folder(error)
            raise RunStopped(f"cannot join the Ray cluster at {address}: {why_not_joined(error, told())}") from error

    if os.environ.get(OPEN_IS_MEANT) != "1" and _is_open(ray.get_runtime_context().gcs_address):
        ray.shutdown()
        raise ConfigError(
            f"the Ray cluster at {address} asks for no token: whoever reaches it can run any program on it. Start it with "
            f"RAY_AUTH_MODE=token (docs/cluster.md). If the network alone is to protect it, set {OPEN_IS_MEANT}=1"
        )


def _is_open(gcs_address: str) -> bool:
    """Whether it answers a caller that has no token. In a process of its own: Ray reads the mode when it is imported."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_WITHOUT_TOKEN, gcs_address],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return asked.returncode == 0


def _start(config: RunConfig) -> None:
    """Raises ConfigError where /dev/shm is too small: Ray would put its store on disk, and say so to nobody; and where Ray's
    sockets would have no room in the name of the folder for temporary files."""
    _refuse_long_folder()
    short = shm_shortage(config.cluster.object_store_bytes, free_resources(config.run_path))
    if short and config.resources.enabled:
        raise ConfigError(f"{short}. To go on anyway, with the store on disk: --set resources.enabled=false")
    try:
        ray.init(
            address="local",  # never somebody else's Ray on this machine
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            num_cpus=4,  # nothing reserves CPUs here; Ray would keep an idle process ready for each
            object_store_memory=config.cluster.object_store_bytes,
            runtime_env=HOOK,
        )
    except (RuntimeError, OSError, ValueError) as error:
        _refuse_unwritable_folder(error)
        raise RunStopped(
            f"Ray did not start: {error}. Check free memory, /dev/shm and disk space with `memr doctor`; a smaller "
            "cluster.object_store_bytes may help"
        ) from error


def _refuse_unwritable_folder(error: Exception) -> None:
    """Raises ConfigError where Ray failed over a folder that it cannot write; returns for every other cause."""
    if isinstance(error, OSError) and error.filename and error.errno in _CANNOT_WRITE:
        raise ConfigError(
            f"Ray cannot write {error.filename}: {error.strerror}. Its sockets and logs are in the folder for temporary files "
            f"({_temporary_folder()}: TMPDIR, or RAY_TMPDIR for Ray's alone), its token in the home folder ({Path.home()}: "
            "HOME). Set these to folders that can be written"
        ) from error


def _temporary_folder() -> str:
    """As Ray chooses it."""
    return os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))


def _refuse_long_folder() -> None:
    folder = _temporary_folder()
    longest = MAX_SOCKET_BYTES - len(_SOCKET)
    if len(os.fsencode(folder)) > longest:
        raise ConfigError(
            f"the folder for temporary files, {folder} (TMPDIR, or RAY_TMPDIR for Ray's alone), has a name of "
            f"{len(os.fsencode(folder))} bytes; Ray puts Unix sockets there, whose names have {MAX_SOCKET_BYTES} at most, and "
            f"needs {len(_SOCKET)} of them. Name a folder of at most {longest} bytes, for example RAY_TMPDIR=/tmp memr .."
        )


def _session(*, owned: bool) -> Session:
    nodes = cluster_nodes()
    if owned:  # it was told of a few CPUs that nothing reserves (`_start`)
        nodes = tuple(replace(node, cpus=float(usable_cores())) for node in nodes)
    return Session(owned, nodes, ray.get_runtime_context().get_node_id())


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
