"""The environment of a run's processes on whatever node: memr's defaults, thread counts, `[cluster.env]`. Pure."""

from collections.abc import Mapping

from cluster.launch.environment import DEFAULTS, OMP_WAIT_POLICY, waiting

HIDE_GPUS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
"""Ray 2.60 shows every GPU of a node to an actor that asked for none, unless its environment says this."""
NICENESS = "RAY_worker_niceness"
"""What Ray adds to the niceness of its node process, by default 15: beside anything else a run would hardly get a core."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read when numpy, torch or faiss load."""


def actor_environment(own: Mapping[str, str], given: Mapping[str, str], log_level: str) -> dict[str, str]:
    """own: of this process, whose nodes need not have it. given: `[cluster.env]`, which wins."""
    shared = {name: own[name] for name in DEFAULTS if name in own and not name.startswith("RAY_")}
    shared |= {name: own[name] for name in (OMP_WAIT_POLICY,) if name in own} | waiting({**own, **given})
    shared[NICENESS] = own.get(NICENESS, "0")
    if own.get("VLLM_LOGGING_LEVEL", "") == DEFAULTS["VLLM_LOGGING_LEVEL"]:  # chosen for a terminal; here is a file
        shared["VLLM_LOGGING_LEVEL"] = log_level.upper()
    return {**HIDE_GPUS, "TOKENIZERS_PARALLELISM": "false", **shared, **given}


def thread_environment(threads: int) -> dict[str, str]:
    """Returns the variables that limit the maths libraries to this many threads."""
    return dict.fromkeys(_THREADS, str(threads))
