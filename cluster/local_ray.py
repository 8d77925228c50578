"""A Ray of our own on this machine: loopback (environment.py), token authentication, no dashboard; ended with the run.

`ray.shutdown` ends what `ray.init` started here, and no other Ray on the machine.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from cluster.config import RunConfig
from cluster.parts import AdapterRef
from contracts.adapter import Adapter
from contracts.errors import RunStopped


@contextmanager
def local_ray(config: RunConfig) -> Iterator[None]:
    """Raises RunStopped, with Ray's own words, if it does not start."""
    if ray.is_initialized():  # a caller (a test, a notebook) has one: use it and leave it alone
        yield
        return
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            num_cpus=max(2, config.actors.num_workers + 2),
            object_store_memory=config.cluster.object_store_bytes,
        )
    except (RuntimeError, OSError, ValueError, ConnectionError) as error:
        raise RunStopped(
            f"Ray did not start: {error}. Check free memory, /dev/shm and disk space with `memr doctor`; a smaller "
            "cluster.object_store_bytes may help"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def share(adapter: Adapter) -> AdapterRef:
    """Put an adapter into the object store once; every node fetches it once."""
    reference: Any = ray.put(adapter)
    return reference
