"""Runs that the control-plane benchmarks share: the scripted engine and learner, everything else real."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig, dump_config
from cluster.record.run_view import RunView, read_run


def scripted_config(directory: str, **sections: dict[str, Any]) -> RunConfig:
    """Zero-cost engine and learner, hash encoder; `sections` are laid over it."""
    base: dict[str, dict[str, Any]] = {
        "run": {"directory": directory, "name": "bench"},
        "model": {"name": "scripted"},
        "task": {"kind": "arithmetic", "worked_examples": 0},
        "actors": {"engine": "scripted", "rollouts_per_group": 8, "max_new_tokens": 32, "torch_threads": 1},
        "memory": {"encoder": "hash:64"},
        "learner": {"num_updates": 100, "max_policy_lag": 2, "torch_threads": 1},
        "cluster": {"groups_per_batch": 8, "tensorboard": False, "checkpoint_every_updates": 0},
        "eval": {"problems": 0},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return RunConfig.model_validate(base)


def run_scripted(**sections: dict[str, Any]) -> RunView:
    """Train to the end in a temporary directory; returns what it left."""
    with tempfile.TemporaryDirectory() as directory:
        config = scripted_config(directory, **sections)
        file = Path(directory) / "bench.toml"
        file.write_text(dump_config(config))
        subprocess.run([sys.executable, "-m", "cluster", "train", str(file)], check=True, stdout=subprocess.DEVNULL)
        return read_run(config.run_path)


def seconds_between(run: RunView, skip: int) -> float:
    """Wall-clock seconds from update `skip` to the last one."""
    return float(run.metrics[-1]["wall_s"] - run.metrics[skip - 1]["wall_s"])
