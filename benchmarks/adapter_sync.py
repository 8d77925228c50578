"""Claim: a new version is proven on every worker within a second, for 64 workers.

From the learner's publication to each worker's proof, as events.jsonl has it. Scripted workers take the real bytes of a
rank-32 adapter of a 1.5B model (about 74 MB in bfloat16) through the object store, and check their hash; they have no
engine to load them into. With --vllm RUN, the same of a real run on vLLM workers (a run directory).
Every process shares this machine's cores; on a cluster each node has its own.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results_table import show
from benchmarks.scripted_run import run_scripted
from cluster.record.events.event import Event
from cluster.record.events.training import Published
from cluster.record.events.workers import Proven
from cluster.record.run_lines import RunLines

RANK_32_OF_1_5B = 73_859_072
"""Qwen2.5-1.5B: r 32 on its seven linear layers x 28, 36.9 million parameters of two bytes."""
WARM = 2


def delays(events: Sequence[Event], workers: int) -> dict[int, list[float]]:
    """Seconds from publication to proof by version, for versions that every worker proved."""
    published = {event.version: event.time_s for event in events if isinstance(event, Published)}
    found: dict[int, list[float]] = {}
    for event in events:
        if isinstance(event, Proven) and event.version in published:
            found.setdefault(event.version, []).append(event.time_s - published[event.version])
    return {version: times for version, times in sorted(found.items())[WARM:] if len(times) >= workers}


def row(what: str, workers: int, events: Sequence[Event]) -> dict[str, Any]:
    by_version = delays(events, workers)
    every = [time for times in by_version.values() for time in times]
    last = [max(times) for times in by_version.values()]
    return {
        "workers": what,
        "versions": len(by_version),
        "one worker p50 s": statistics.median(every),
        "one worker p99 s": float(np.percentile(every, 99)),
        "all workers p50 s": statistics.median(last),
        "all workers p99 s": float(np.percentile(last, 99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--adapter-bytes", type=int, default=RANK_32_OF_1_5B)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--update-s", type=float, default=3.0, help="time of one update: versions come this far apart")
    parser.add_argument("--vllm", type=Path, help="a run directory of real vLLM workers")
    args = parser.parse_args()
    rows = []
    for workers in args.workers:
        run = run_scripted(
            actors={
                "num_workers": workers,
                "max_batch_rows": 8,
                "scripted": {"latency_per_request_s": 0.1},
            },
            learner={
                "num_updates": args.updates + int(workers / args.update_s),
                "max_policy_lag": 1,
                "scripted": {"update_s": args.update_s, "adapter_bytes": args.adapter_bytes},
            },
            memory={"profile": "off"},
            cluster={"groups_per_batch": 8, "object_store_bytes": 2 * 2**30, "adapters_on_disk": 2},
        )
        rows.append(row(f"{workers} scripted, {args.adapter_bytes / 1e6:.0f} MB", workers, run.events))
        print(rows[-1], flush=True)
    if args.vllm:
        events = RunLines(args.vllm).events.look()
        workers = len({event.worker for event in events if isinstance(event, Proven)})
        size = next((args.vllm / "adapters").glob("v*/adapter_model.safetensors")).stat().st_size
        rows.append(row(f"{workers} vLLM, {size / 1e6:.0f} MB", workers, events))
    show("adapter_sync", "From publication to proven on every worker", rows, "goal: below 1 s for 64")


if __name__ == "__main__":
    main()
