"""Claim: a synchronous run that is killed at any moment and resumed equals one that was not.

kill -9 of every process of the run at a random moment between its first and its last update, then `memr resume`: last
adapter, memory content and ledger must be equal byte by byte, and memory's answers must not differ. --config quickstart
takes the real model (four small updates), scripted no model (twenty).
"""

import argparse
import hashlib
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results_table import show
from cluster.record.events.resuming import Resumed
from cluster.record.run_lines import RunLines

SETTINGS: dict[str, dict[str, Any]] = {
    "scripted": {
        "learner.num_updates": 20,
        "actors.num_workers": 1,
        "cluster.checkpoint_every_updates": 5,
        "actors.scripted.latency_per_token_s": 0.01,
    },
    "quickstart": {
        "learner.num_updates": 4,
        "cluster.groups_per_batch": 3,
        "actors.rollouts_per_group": 4,
        "cluster.checkpoint_every_updates": 2,
    },
}


def command(config: str, directory: Path, name: str) -> list[str]:
    settings = SETTINGS[config] | {
        "run.directory": directory,
        "run.name": name,
        "learner.max_policy_lag": 0,
        "eval.problems": 0,
        "cluster.tensorboard": "false",
    }
    overrides = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "cluster", "train", f"configs/{config}.toml", *overrides]


def kill_all(process: "subprocess.Popen[bytes]") -> None:
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def steps(path: Path) -> int:
    file = path / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def fingerprint(path: Path, updates: int) -> str:
    digest = hashlib.sha256()
    files = [
        *path.glob(f"adapters/v{updates:06d}-*/adapter_model.safetensors"),
        *path.glob(f"checkpoints/step-{updates:06d}/memory/*/vectors.safetensors"),
        *path.glob(f"checkpoints/step-{updates:06d}/memory/*/episodes.parquet"),
    ]
    assert len(files) == 3, files
    for file in files:
        digest.update(file.read_bytes())
    events = (json.loads(line) for line in (path / "ledger" / "events.jsonl").read_text().splitlines())
    digest.update(str(sorted(Counter((e["lease_id"], e["fate"]) for e in events).items())).encode())
    return digest.hexdigest()


def kill_and_resume(config: str, directory: Path, name: str, life_s: float) -> dict[str, Any]:
    """One run, killed `life_s` after its first update (or a moment after its start when life_s is negative)."""
    path = directory / name
    process = subprocess.Popen(command(config, directory, name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while steps(path) < 1 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(life_s)
    killed_at = steps(path)
    if process.poll() is None:
        kill_all(process)
    subprocess.run([sys.executable, "-m", "cluster", "resume", str(path)], check=True, stdout=subprocess.DEVNULL)
    resumed = [event for event in RunLines(path).events.look() if isinstance(event, Resumed)]
    return {
        "killed_at": killed_at,
        "fingerprint": fingerprint(path, SETTINGS[config]["learner.num_updates"]),
        "memory_difference": max((event.memory_difference for event in resumed), default=0.0),
        "updates_replayed": sum(event.updates_replayed for event in resumed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", choices=list(SETTINGS), default="scripted")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random_ = random.Random(args.seed)
    updates = SETTINGS[args.config]["learner.num_updates"]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        started = time.monotonic()
        whole = subprocess.Popen(command(args.config, directory, "whole"), stdout=subprocess.DEVNULL)
        while steps(directory / "whole") < 1:
            time.sleep(0.01)
        first = time.monotonic()
        while steps(directory / "whole") < updates:
            time.sleep(0.01)
        length_s = time.monotonic() - first
        assert whole.wait() == 0
        print(f"uninterrupted: {time.monotonic() - started:.0f} s, of which updates {length_s:.1f} s", flush=True)
        wanted = fingerprint(directory / "whole", updates)
        results = []
        for i in range(args.kills):
            results.append(kill_and_resume(args.config, directory, f"killed-{i}", random_.uniform(0, length_s)))
            print(i, results[-1], flush=True)
    rows = [
        {
            "run": f"{args.config}, {updates} updates",
            "killed": len(results),
            "equal to the uninterrupted run": sum(result["fingerprint"] == wanted for result in results),
            "killed after update (least, median, most)": f"{min(r['killed_at'] for r in results)}, {statistics.median(r['killed_at'] for r in results):g}, {max(r['killed_at'] for r in results)}",
            "updates repeated from the log": sum(result["updates_replayed"] for result in results),
            "largest difference of memory's answers": max(result["memory_difference"] for result in results),
        }
    ]
    show(f"resume_kills_{args.config}", "Killed at a random moment and resumed, synchronous", rows)


if __name__ == "__main__":
    main()
