"""Claim: rollouts per second grow with the number of workers, at least 95 % of linear at 64.

Scripted engine whose tokens take simulated time (a group of G takes --latency-s, whatever the machine does meanwhile),
scripted learner that costs nothing; leases, memory (hash encoder), ledger, metrics, Parquet are the real thing. Counted
over the updates that ran with all workers serving.
"""

import argparse
from typing import Any

from benchmarks.results_table import show
from benchmarks.scripted_run import run_scripted
from cluster.record.run_view import RunView

G = 8


def rate(run: RunView, workers: int) -> float:
    """Rollouts per second between the first and the last update with all workers."""
    lines = [line for line in run.metrics if line["workers"] == workers][1:]  # the first batch holds earlier work
    groups = lines[-1]["ledger"]["trained"] - lines[0]["ledger"]["trained"]
    return float(G * groups / (lines[-1]["wall_s"] - lines[0]["wall_s"]))


def measure(workers: int, latency_s: float, seconds: float) -> RunView:
    batch = max(4, workers)
    start_s = 5 + 1.5 * workers  # while workers join, updates pass as well
    updates = 4 + int((seconds + start_s) * workers / latency_s / batch)
    return run_scripted(
        actors={
            "num_workers": workers,
            "rollouts_per_group": G,
            "max_batch_rows": G,
            "scripted": {"latency_per_request_s": latency_s},
        },
        learner={"num_updates": updates, "max_policy_lag": 2},
        cluster={"groups_per_batch": batch},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--latency-s", type=float, default=2.0, help="time of one group at one worker")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each measurement")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for workers in args.workers:
        measured = rate(measure(workers, args.latency_s, args.seconds), workers)
        linear = G * workers / args.latency_s
        rows.append(
            {
                "workers": workers,
                "rollouts per second": measured,
                "linear": linear,
                "of linear": f"{measured / linear:.1%}",
            }
        )
        print(rows[-1], flush=True)
    show("worker_scaling", f"Rollouts per second, a group of {G} takes {args.latency_s:g} s", rows, "goal: 95 % at 64")


if __name__ == "__main__":
    main()
