"""Environment variables that libraries read when they are imported: set once, before anything heavy is.

Ray would listen on every interface; told that it need not form a cluster of machines, it uses loopback alone.
"""

import os
from collections.abc import Mapping, Sequence

_THIS_MACHINE_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's own switch, on Linux too
DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_task_events_report_interval_ms": "0",  # a record of every call, up to 330 MB of it, for a dashboard that is off
    # Progress bars and notices would break up the console; memr says itself what it does.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray's page of a raylet's last words among them; its own log files have it
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it cannot give processed log-probs; its probe would compile at every start
}


def prepare_environment(arguments: Sequence[str] = ()) -> None:
    """What the user has set stays. arguments: of the command line; `--address` joins other machines."""
    joins = any(argument.split("=")[0] == "--address" for argument in arguments)
    for name, value in (DEFAULTS | ({} if joins else _THIS_MACHINE_ONLY)).items():
        os.environ.setdefault(name, value)


def apply_environment(given: Mapping[str, str]) -> None:
    """given: `[cluster.env]`, of a run or a configuration, for this process: as soon as it is read, before anything is
    imported that reads it."""
    os.environ.update(given)
