"""Claim: the control plane carries at least 200 groups per second on 2 cores.

Engine and learner cost nothing; leases, groups, memory (hash encoder), ledger, adapters, Parquet and metrics
are the real thing through real Ray processes. Counted from update 20 on, when everything is warm.
"""

import argparse

from benchmarks.results_table import show
from benchmarks.scripted_run import run_scripted, seconds_between

WARM = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=150)
    args = parser.parse_args()
    rows = []
    for workers in (1, 2):
        for memory in ("off", "memr"):
            run = run_scripted(
                actors={"num_workers": workers},
                memory={"profile": memory},
                learner={"num_updates": args.updates, "max_policy_lag": 4},
                cluster={"groups_per_batch": 16},
            )
            groups = (args.updates - WARM) * 16
            seconds = seconds_between(run, WARM)
            rows.append(
                {
                    "workers": workers,
                    "memory": memory,
                    "groups": groups,
                    "seconds": seconds,
                    "groups per second": groups / seconds,
                }
            )
    show(
        "control_plane",
        "Groups through the controller, zero-cost engine and learner",
        rows,
        "goal: at least 200 groups/s",
    )


if __name__ == "__main__":
    main()
