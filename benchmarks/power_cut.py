"""Claim: a power cut costs nothing that a run has reported, and no sync is there for nothing.

Four lives are recorded at the level of the C library (tests/power/): a whole run, one that dies between an adapter's rename
and its sync, one that dies before its last checkpoint, one that is asked for more updates on torn files. From the records: 200
random disks that a power cut may leave, each resumed in process; every place in the code that syncs, left out, and the
first disk that breaks a promise then; five disks resumed by `memr resume`. And what the syncs of one update cost here.
"""

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.results_table import show
from cluster.record.adapter_registry import write_adapter
from cluster.record.history import History
from cluster.record.run_log import RunLog
from storage.arrow import write_groups
from tests.fakes import make_adapter, make_group, make_scored
from tests.power.crash import (
    Recording,
    State,
    breaking_state,
    problems,
    random_state,
    record,
    recordings,
    resumed_by_command,
)
from tests.power.disk import random_cut


def random_disks(recorded: list[Recording], count: int, folder: Path) -> dict[str, Any]:
    found, lives = Counter[str](), Counter[str]()
    for seed in range(1000, 1000 + count):
        state = random_state(recorded, seed)
        lives[state.recording.name] += 1
        found.update(problems(state, folder / "disk")[:1])
        shutil.rmtree(folder / "disk")
    return {
        "what": f"random disks of {', '.join(f'{n} {life}' for life, n in sorted(lives.items()))}; in process",
        "number": count,
        "as promised": count - found.total(),
        "else": "; ".join(found),
    }


def left_out(recorded: list[Recording], folder: Path) -> list[dict[str, Any]]:
    """A row for every place that syncs: what breaks without it."""
    rows = []
    for site in sorted({site for recording in recorded for site in recording.sites}):
        broken = breaking_state(recorded, site, folder)
        what = broken[1][0].replace(str(folder), "")[:120] if broken else "NOTHING"
        rows.append({"sync left out": site, "life": broken[0].recording.name if broken else "", "what breaks": what})
    return rows


def by_command(folder: Path) -> dict[str, Any]:
    recording = record(folder, "plain", [["--plain"]], updates=8)
    told = [i for i, operation in enumerate(recording.operations) if operation.kind == "M"]
    found = Counter[str]()
    for seed in range(5):
        state = State(recording, random.Random(seed).randint(told[3], told[-4]), random_cut(seed))
        found.update(resumed_by_command(state, folder / f"command-{seed}")[:1])
    return {
        "what": "random disks; `memr resume`",
        "number": 5,
        "as promised": 5 - found.total(),
        "else": "; ".join(found),
    }


def costs(folder: Path) -> list[dict[str, Any]]:
    """The same with syncs and without."""
    rows, really = [], os.fsync
    for name in ("synced", "not synced"):
        (folder / name).mkdir()
        rows.append({"": name} | cost(folder / name))
        os.fsync = lambda fd: None
    os.fsync = really
    return rows


def cost(folder: Path, updates: int = 30) -> dict[str, Any]:
    """Milliseconds, median, of what one update of 8 x 8 rollouts of 64 tokens puts on disk, on the disk of `folder`."""
    history = History(RunLog(folder / "log"))
    times: dict[str, list[float]] = {
        "sampled, not synced": [],
        "trained": [],
        "adapter": [],
        "transcripts, not synced": [],
    }
    groups = [make_group(i, rewards=[0.0] * 8, tokens=64) for i in range(8)]
    scored = [make_scored(group) for group in groups]
    (folder / "rollouts").mkdir()
    for step in range(updates):
        actions: dict[str, Callable[[], object]] = {
            "sampled, not synced": partial(history.sampled, groups),
            "trained": partial(history.trained, step, range(8), "hash"),
            "adapter": partial(write_adapter, make_adapter(step, bytes(4 * 2**20)), folder / "adapters"),
            "transcripts, not synced": partial(write_groups, scored, folder / "rollouts" / f"{step}.parquet"),
        }
        for name, action in actions.items():
            started = time.monotonic()
            action()
            times[name].append(1000 * (time.monotonic() - started))
    history.close()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disks", type=int, default=200)
    parser.add_argument("--no-command", action="store_true", help="without Ray")
    args = parser.parse_args()
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as scratch,
        tempfile.TemporaryDirectory() as disk,
    ):
        folder = Path(scratch)
        recorded = recordings(folder)
        rows = [random_disks(recorded, args.disks, folder)]
        if not args.no_command:
            rows.append(by_command(folder))
        sites = left_out(recorded, folder / "sites")
        costed = costs(Path(disk))
    show("power_cut", "Disks that a power cut may leave, resumed", rows)
    show("power_cut_sites", "Every sync, left out, and what breaks", sites)
    show(
        "power_cut_cost", "Milliseconds per update, median", costed, "8 x 8 rollouts of 64 tokens, an adapter of 4 MiB"
    )


if __name__ == "__main__":
    main()
