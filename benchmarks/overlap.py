"""Claim: with lag, an update costs the longer of sampling and learning, not their sum.

Scripted engine whose tokens take simulated time, scripted learner whose updates do: nothing competes for
cores, so the waiting is all there is to hide. With --quickstart, the quickstart's own run as well, evaluations
left out: there worker, memory and learner share the machine's cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results_table import show
from benchmarks.scripted_run import run_scripted, seconds_between
from cluster.record.run_view import RunView, read_run

WARM = 5


def row(what: str, lag: int, run: RunView, **expected: float) -> dict[str, Any]:
    lines = run.metrics[WARM:]
    waited = sum(line["wait_memory_s"] for line in lines) / sum(line["step_s"] for line in lines)
    return {
        "run": what,
        "max lag": lag,
        "sampling s": expected.get("sampling_s", "-"),
        "update s": expected.get("update_s", statistics.mean(line["update_s"] for line in lines)),
        "measured s per update": seconds_between(run, WARM) / len(lines),
        "mean lag": statistics.mean(line["lag_mean"] for line in lines),
        "learner waits for memory": f"{waited:.2%}",
    }


def scripted(lag: int, args: argparse.Namespace) -> dict[str, Any]:
    run = run_scripted(
        actors={
            "max_batch_rows": 64,
            "scripted": {"latency_per_request_s": args.rollouts_s},
        },
        learner={"num_updates": args.updates, "max_policy_lag": lag, "scripted": {"update_s": args.update_s}},
    )
    return row("scripted", lag, run, sampling_s=args.rollouts_s, update_s=args.update_s)


def quickstart(lag: int, updates: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "run.directory": directory,
            "learner.max_policy_lag": lag,
            "learner.num_updates": updates,
            "eval.problems": 0,
            "eval.every_updates": 0,
        }
        overrides = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "cluster", "train", "configs/quickstart.toml", *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return row("quickstart", lag, read_run(Path(directory) / "quickstart"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rollouts-s", type=float, default=0.4, help="time of one batch of rollouts")
    parser.add_argument("--update-s", type=float, default=0.3, help="time of one update")
    parser.add_argument("--quickstart", type=int, default=0, metavar="UPDATES", help="also the real quickstart")
    args = parser.parse_args()
    rows = [scripted(lag, args) for lag in (0, 1, 2)]
    if args.quickstart:
        rows += [quickstart(lag, args.quickstart) for lag in (0, 2)]
    show("overlap", "Seconds per update: sum without lag, maximum with", rows)


if __name__ == "__main__":
    main()
