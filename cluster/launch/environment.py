"""Environment variables that libraries read when they are imported: set once, before anything heavy is.

Ray would listen on every interface; told that it need not form a cluster of machines, it uses loopback alone.
OpenMP threads wait for each other many thousand times in a step, and spin while they do: where one of them has lost its
core to somebody else, the rest burn theirs for nothing (`benchmarks/busy_machine.py`).
"""

import os
from collections.abc import Mapping, Sequence

_THIS_MACHINE_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's own switch, on Linux too
DEFAULTS = {
    "RAY_AUTH_MODE": "token",
    "RAY_task_events_report_interval_ms": "0",  # a record of every call, up to 330 MB of it, for a dashboard that is off
    # Progress bars and notices would break up the console; memr says itself what it does.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray's page of a raylet's last output among them; its own log files have it
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it cannot give processed log-probs; its probe would compile at every start
    # vLLM's CPU build would bind each thread to one core, the same cores in every worker: a thread whose core somebody else
    # uses could not move away. It would also count its threads itself, whatever `actors.torch_threads` says.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
OMP_WAIT_POLICY = "OMP_WAIT_POLICY"
_WAITING = {
    "GOMP_SPINCOUNT": "1000",  # turns, not 300,000; GNU's OpenMP, which torch, faiss and scikit-learn bring
    "KMP_BLOCKTIME": "1",  # milliseconds, not 200; Intel's and LLVM's OpenMP, where somebody preloads it
}
"""Some 20 microseconds: enough for the gap between two operations, so that alone it costs nothing. OMP_WAIT_POLICY=PASSIVE,
which does not spin at all, takes from small operations what a second thread gives them."""


def prepare_environment(arguments: Sequence[str] = ()) -> None:
    """What the user has set stays. arguments: of the command line; `--address` joins other machines."""
    joins = any(argument.split("=")[0] == "--address" for argument in arguments)
    for name, value in (DEFAULTS | ({} if joins else _THIS_MACHINE_ONLY) | waiting(os.environ)).items():
        os.environ.setdefault(name, value)


def waiting(own: Mapping[str, str]) -> dict[str, str]:
    """How OpenMP threads wait, for an environment `own`. Nothing where it names a policy: these variables would overrule it."""
    return {} if OMP_WAIT_POLICY in own else {name: own.get(name, value) for name, value in _WAITING.items()}


def apply_environment(given: Mapping[str, str]) -> None:
    """given: `[cluster.env]`, of a run or a configuration, for this process: as soon as it is read, before anything is
    imported that reads it. A policy of waiting that it names is not overruled by memr's own variables."""
    if OMP_WAIT_POLICY in given:
        for name, value in _WAITING.items():
            if os.environ.get(name) == value:
                del os.environ[name]
    os.environ.update(given)
