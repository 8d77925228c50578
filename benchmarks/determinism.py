"""Claim: with max_policy_lag 0 the same seed gives the same adapter bytes and the same memory, twice.

The real model, encoder and Ray; a few updates.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.results_table import show
from cluster.record.adapter_registry import adapter_folder


def fingerprint(path: Path) -> str:
    """SHA-256 over the names and bytes of all files below, times and absolute paths not included."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for attempt in (1, 2):
        with tempfile.TemporaryDirectory() as directory:
            settings = [
                f"run.directory={directory}",
                f"learner.num_updates={args.updates}",
                "learner.max_policy_lag=0",
                "eval.problems=0",
                "cluster.tensorboard=false",
            ]
            command = [sys.executable, "-m", "cluster", "train", "configs/quickstart.toml"]
            command += [argument for setting in settings for argument in ("--set", setting)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            run_path = Path(directory) / "quickstart"
            adapter = adapter_folder(run_path / "adapters") / "adapter_model.safetensors"
            memory = run_path / "checkpoints" / f"step-{args.updates:06d}" / "memory"
            rows.append(
                {
                    "run": attempt,
                    "updates": args.updates,
                    "adapter": hashlib.sha256(adapter.read_bytes()).hexdigest()[:16],
                    "memory": fingerprint(memory),
                }
            )
    equal = len({(row["adapter"], row["memory"]) for row in rows}) == 1
    show("determinism", "Same seed, lag 0, twice", rows, "equal" if equal else "NOT EQUAL")


if __name__ == "__main__":
    main()
