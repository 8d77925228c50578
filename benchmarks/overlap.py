"""Claim: with lag, an update costs the longer of sampling and learning, not their sum.

Scripted engine whose tokens take simulated time, scripted learner whose updates do: nothing competes for
cores, so the waiting is all there is to hide.
"""

import argparse

from benchmarks.results_table import show
from benchmarks.scripted_run import run_scripted, seconds_between

WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rollouts-s", type=float, default=0.4, help="time of one wave of rollouts")
    parser.add_argument("--update-s", type=float, default=0.3, help="time of one update")
    args = parser.parse_args()
    rows = []
    for lag in (0, 1, 2):
        run = run_scripted(
            actors={
                "max_batch_rows": 64,
                "adapters_kept": lag + 2,
                "scripted": {"latency_per_request_s": args.rollouts_s},
            },
            learner={"num_updates": args.updates, "max_policy_lag": lag, "scripted": {"update_s": args.update_s}},
        )
        per_update = seconds_between(run, WARM) / (args.updates - WARM)
        waited = sum(line["wait_memory_s"] for line in run.metrics[WARM:]) / sum(
            line["step_s"] for line in run.metrics[WARM:]
        )
        rows.append(
            {
                "max lag": lag,
                "sampling s": args.rollouts_s,
                "update s": args.update_s,
                "measured s per update": per_update,
                "mean lag": run.metrics[-1]["lag_mean"],
                "learner waits for memory": f"{waited:.2%}",
            }
        )
    show("overlap", "Seconds per update: sum without lag, maximum with", rows)


if __name__ == "__main__":
    main()
