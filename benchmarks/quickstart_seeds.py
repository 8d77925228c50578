"""Claim: the quickstart learns; and what the memory adds to plain GRPO there, whatever comes out.

The quickstart's configuration with memory.profile "memr" and "off", several seeds each, evaluated before and
after training only. Runs stay below --directory, for a look at their reports.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.results_table import show
from cluster.run_dir import RunRecord, read_run


def train(directory: Path, profile: str, seed: int) -> RunRecord:
    """A run that is there already is read, not repeated."""
    name = f"{profile}-seed{seed}"
    settings = [
        f"run.directory={directory}",
        f"run.name={name}",
        f"run.seed={seed}",
        f"task.seed={seed}",
        f"memory.profile={profile}",
        "eval.every_updates=0",
    ]
    command = [sys.executable, "-m", "cluster", "train", "configs/quickstart.toml"]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return read_run(directory / name)


def scores(run: RunRecord, step: int) -> dict[str, float]:
    """Held-out numbers of one step by kind."""
    limit = run.config.eval_max_new_tokens
    found = {}
    for line in (line for line in run.evals if line["step"] == step):
        if line["k"]:
            found["pass@k"] = line["pass_at_k"]
        else:
            found["greedy" if line["max_new_tokens"] == limit else "generous"] = line["accuracy"]
    return found


def row(profile: str, seed: int, run: RunRecord) -> dict[str, Any]:
    before, after = scores(run, 0), scores(run, len(run.metrics))
    total = sum(line["step_s"] for line in run.metrics)
    assert run.summary is not None
    return {
        "memory": profile,
        "seed": seed,
        "greedy before": before["greedy"],
        "greedy after": after["greedy"],
        "generous before": before["generous"],
        "generous after": after["generous"],
        "pass@4 before": before["pass@k"],
        "pass@4 after": after["pass@k"],
        "minutes": run.summary["wall_s"] / 60,
        "s per update": statistics.median(line["step_s"] for line in run.metrics),
        "waits for memory": sum(line["wait_memory_s"] for line in run.metrics) / total,
        "mean lag": statistics.mean(line["lag_mean"] for line in run.metrics),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--profiles", nargs="+", default=["memr", "off"])
    args = parser.parse_args()
    rows = [row(p, seed, train(args.directory, p, seed)) for seed in args.seeds for p in args.profiles]
    for profile in args.profiles:
        mine = [r for r in rows if r["memory"] == profile]
        means = {key: statistics.mean(r[key] for r in mine) for key in list(mine[0])[2:]}
        rows.append({"memory": profile, "seed": "mean"} | means)
    show("quickstart_seeds", "Quickstart: held-out accuracy before and after, n = 200 (pass@4: n = 50)", rows)


if __name__ == "__main__":
    main()
