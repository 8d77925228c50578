"""Claim: workers join and leave at any time: nothing is lost or regresses, and throughput follows their number.

A run of 300 updates on the scripted engine (latency-bound), real Ray. Every few seconds, at random, the number of
workers is changed with `memr scale` or one worker process is killed with SIGKILL. Then, from what the run left: the
ledger identity of every update, the versions of every trained rollout (none that was never published, none beyond the
lag), groups per worker-second while the number of workers stood still, and the time from the start of a join, and from
the end of loading, to the first proven version.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results_table import show
from benchmarks.scripted_run import scripted_config
from cluster.config.run_config import dump_config
from cluster.record.events.training import Published
from cluster.record.events.workers import Joined, Proven
from cluster.record.requests import ask
from cluster.record.run_view import RunView, read_run
from storage.arrow import read_groups

LATENCY_S = 0.5


def disturb(run_path: Path, process: "subprocess.Popen[bytes]", random_: random.Random, most: int) -> dict[str, int]:
    """Scale and kill until the run is over; returns how often."""
    done = {"scaled": 0, "killed": 0}
    while process.poll() is None:
        time.sleep(random_.uniform(2.0, 5.0))
        if not (run_path / "metrics.jsonl").exists() or process.poll() is not None:
            continue
        if random_.random() < 0.5:
            victims = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if "RolloutWorkerActor" in " ".join(_cmdline(child))
            ]
            if victims:
                random_.choice(victims).kill()
                done["killed"] += 1
        else:
            try:
                ask(run_path, ask="scale", workers=random_.randint(1, most), pool=None)
                done["scaled"] += 1
            except Exception as error:  # noqa: BLE001  the run may end at this moment
                print("not scaled:", error, file=sys.stderr)
    return done


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def faults(run: RunView) -> dict[str, int]:
    """What must be zero."""
    published = {event.version for event in run.events if isinstance(event, Published)}
    unknown = regressed = twice = 0
    seen: set[str] = set()
    for line in run.metrics:
        for file in run.path.glob(f"rollouts/step-{line['step']:06d}-trained-*.parquet"):
            for scored in read_groups(file):
                unknown += scored.group.policy_version not in published
                regressed += line["step"] - 1 - scored.group.policy_version > run.config.learner.max_policy_lag
                twice += scored.group.group_id.split("/")[0] in seen
                seen.add(scored.group.group_id.split("/")[0])
    ledger = run.metrics[-1]["ledger"]
    accounted = sum(count for name, count in ledger.items() if name != "issued")
    return {
        "unknown version": unknown,
        "beyond the lag": regressed,
        "trained twice": twice,
        "unaccounted": ledger["issued"] - accounted,
    }


def follow_rates(run: RunView) -> dict[int, float]:
    """Groups per second by number of workers, over stretches of at least three updates with that number throughout."""
    found: dict[int, list[tuple[int, float]]] = {}
    start = 0
    lines = run.metrics
    for i in range(1, len(lines) + 1):
        if i == len(lines) or lines[i]["workers"] != lines[start]["workers"]:
            if i - start > 3:
                groups = lines[i - 1]["ledger"]["trained"] - lines[start]["ledger"]["trained"]
                found.setdefault(lines[start]["workers"], []).append(
                    (groups, lines[i - 1]["wall_s"] - lines[start]["wall_s"])
                )
            start = i
    return {n: sum(g for g, _ in parts) / sum(s for _, s in parts) for n, parts in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--most", type=int, default=6, help="most workers at once")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = scripted_config(
            directory,
            actors={"num_workers": 2, "max_batch_rows": 8, "scripted": {"latency_per_request_s": LATENCY_S}},
            learner={"num_updates": args.updates},
            cluster={"groups_per_batch": 6, "worker_restarts": 1000, "lease_attempts": 10},
        )
        file = Path(directory) / "bench.toml"
        file.write_text(dump_config(config))
        command = [sys.executable, "-m", "cluster", "train", str(file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            done = disturb(config.run_path, process, random.Random(args.seed), args.most)
        if process.returncode:
            sys.exit(f"the run ended with {process.returncode}")
        run = read_run(config.run_path)
    joins = [event.seconds for event in run.events if isinstance(event, Joined)]
    joined_at = {event.worker: event.time_s for event in run.events if isinstance(event, Joined)}
    first_proof: dict[str, float] = {}
    for event in run.events:
        if isinstance(event, Proven) and event.worker in joined_at:
            first_proof.setdefault(event.worker, event.time_s - joined_at[event.worker])
    rows: list[dict[str, Any]] = [{"what": name, "value": value} for name, value in (done | faults(run)).items()]
    rows += [
        {"what": f"groups/s with {n} workers (linear {n / LATENCY_S:.1f})", "value": rate}
        for n, rate in follow_rates(run).items()
    ]
    rows += [
        {"what": "start of a process to loaded, p50 s", "value": statistics.median(joins)},
        {"what": "loaded to first proven version, p50 s", "value": statistics.median(first_proof.values())},
    ]
    show("join_leave", f"{args.updates} updates while workers are added, removed and killed", rows, json.dumps(done))


if __name__ == "__main__":
    main()
