"""Claim: a run at full speed stays as it is: memory, file handles and disk per process, for as long as it is watched.

Scripted engine and learner without latency, everything else real. Every 10 s: private memory (resident minus shared) and file
handles of each process. Slopes by least squares over the second half. Growth of memory's own episodes is meant until they are full, so
they are bounded low here; the durable log grows with every group, and is compared with what was projected.
"""

import argparse
import signal
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results_table import show
from cluster.record.run_processes import recorded_processes
from cluster.watch.resources.monitor import folder_bytes
from cluster.watch.resources.pressure import slope
from tests.faults.fault_run import FaultRun

EVERY_S = 10.0
TOLD_EVERY_S = 1800.0
UNHURRIED = {
    "cluster__learner_call_s": 120,
    "cluster__memory_call_s": 120,
    "actors__lease_deadline_s": 120,
    "supervision__heartbeat_s": 120,
    "supervision__progress_s": 300,
}
"""The limits of fault runs are for machines that do nothing else."""


def look(run: FaultRun) -> dict[str, tuple[int, int]]:
    """Name -> private bytes, file handles."""
    pids = {name: entry.process.pid for name, entry in recorded_processes(run.path).items() if entry.alive}
    others = {"supervisor": run.process.pid} | {
        name: run.find(name).pid for name in ("controller", "raylet", "ray head")
    }
    found = {}
    for name, pid in (pids | others).items():
        try:
            process = psutil.Process(pid)
            memory = process.memory_info()
            found[name] = (memory.rss - memory.shared, process.num_fds())
        except psutil.Error:
            continue
    return found


def tell(
    run: FaultRun, history: dict[str, list[tuple[float, int, int]]], groups: int, log_bytes: int, end: str
) -> None:
    """The table so far: a soak that is cut short has told what it saw."""
    seconds = history["controller"][-1][0]
    rows: list[dict[str, Any]] = []
    for name, samples in history.items():
        half = [(at_s, private) for at_s, private, _ in samples[len(samples) // 2 :]]
        rows.append(
            {
                "process": name,
                "private MiB at the end": round(samples[-1][1] / 2**20, 1),
                "MiB per hour, second half": round(slope(half) * 3600 / 2**20, 2),
                "file handles first, last": f"{samples[0][2]}, {samples[-1][2]}",
            }
        )
    note = (
        f"{seconds / 60:.0f} min, {groups} groups, {groups / seconds:.0f} groups/s, log {log_bytes / max(1, groups):.0f} "
        f"bytes a group, incidents {run.headlines() or 'none'}, {end}"
    )
    show("soak", "A run at full speed", rows, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    minutes = parser.parse_args().minutes
    history: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        run = FaultRun(
            Path(folder),
            "r",
            learner__num_updates=2_000_000,
            eval__problems=0,
            resources__enabled="false",
            cluster__checkpoint_every_updates=500,
            cluster__groups_per_batch=4,
            actors__rollouts_per_group=4,
            actors__scripted__latency_per_token_s=0,
            memory__max_queries=200,
            **UNHURRIED,
        )
        try:
            run.wait_for_step(50)
            began, disk_at_start, steps_at_start = time.monotonic(), folder_bytes(run.path / "log"), run.steps()
            told_s = began

            def so_far(end: str) -> None:
                groups, log_bytes = 4 * (run.steps() - steps_at_start), folder_bytes(run.path / "log") - disk_at_start
                tell(run, history, groups, log_bytes, end)

            while time.monotonic() - began < 60 * minutes:
                time.sleep(EVERY_S)
                assert run.process.poll() is None, run.output[-2000:]
                for name, (private, handles) in look(run).items():
                    history[name].append((time.monotonic() - began, private, handles))
                if time.monotonic() - told_s > TOLD_EVERY_S:
                    told_s = time.monotonic()
                    so_far("it goes on")
            run.process.send_signal(signal.SIGTERM)
            so_far(f"exit code {run.finish(300)}")
        finally:
            run.end()


if __name__ == "__main__":
    main()
