"""The environment that verifiers and generators get as child processes."""

import os
import sys

from loading.own_packages import own_first


def child_environment() -> dict[str, str]:
    """A child imports what its parent can, its maths libraries start no threads, and sets have one order everywhere."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(own_first(sys.path)), "PYTHONHASHSEED": "0"}
