"""What the memory's reward is worth: arms against plain GRPO, seeds paired, with intervals that can decide.

    python -m benchmarks.memory_arms              stage 1: tiny models, sums and a scratchpad; goes on where it was cut off
    python -m benchmarks.memory_arms --stage 2    the packaged 135M model, dense and sparse: off and stage 1's best arm
    python -m benchmarks.memory_arms --table      only print what has finished
    python -m benchmarks.memory_arms --check      a run without Ray and `memr train` write the same adapter

With --seeds or --arms a plain grid is run in place of the experiment's own order (benchmarks/arms_plan.py). The protocol is
in docs/experiments.md, written down before the first seed ran.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.arms_grid import read_cells, refuse_other_settings, run_experiment, write_cell
from benchmarks.arms_plan import ANNEALED, ARMS, OFF, Cell, Plan, Result, memory_settings
from benchmarks.arms_table import show_arms
from benchmarks.results_table import RESULTS

STAGE_TASKS = {1: ("sums", "scratchpad"), 2: ("dense", "sparse")}
STAGE_2_SEEDS = 5
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

NextCells = Callable[[Mapping[Cell, Result]], list[Cell]]


def main() -> int:
    args = _arguments()
    if args.cell:
        return _one_cell(args)
    if args.check:
        return _check(args)
    directory = _cells_directory(args)
    failed: dict[Cell, str] = {}
    if not args.table:
        next_cells = _next_cells(args)
        refuse_other_settings(read_cells(directory), functools.partial(_wanted, args))
        read = functools.partial(read_cells, directory)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        spawner = Spawner(args)
        try:
            failed = run_experiment(next_cells, read, spawner, args.jobs, spawner.end)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the finished cells", file=sys.stderr)
            return 130
        for cell, reason in failed.items():
            print(f"FAILED {cell.task}/{cell.arm}/seed {cell.seed}: {reason}", file=sys.stderr)
    show_arms(args.stage, read_cells(directory), args.results)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1)
    parser.add_argument("--directory", type=Path, default=Path("runs/memory_arms"), help="finished cells and runs")
    parser.add_argument("--cache", type=Path, help="folder of tiny models; default: memr's cache")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table's JSON goes")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--tasks", nargs="+", help="stage 1: sums scratchpad; stage 2: dense sparse")
    parser.add_argument(
        "--arms", nargs="+", help=f"{' '.join(ARMS)}, NAME{ANNEALED}; stage 2: default off and the best"
    )
    parser.add_argument(
        "--seeds", type=int, help="this many seeds for every arm, in place of the experiment's own order"
    )
    parser.add_argument("--updates", type=int, help="updates of a run; unset: by task")
    parser.add_argument("--model", help="stage 2: another model than the configurations'")
    parser.add_argument("--problems", type=int, default=1000, help="stage 1: held-out problems")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--check", action="store_true", help="without Ray and through `memr train`: the same adapter?")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.tasks = tuple(args.tasks or STAGE_TASKS[args.stage])
    if unknown := set(args.tasks) - set(STAGE_TASKS[args.stage]):
        parser.error(f"stage {args.stage} has no task {sorted(unknown)}; it has {', '.join(STAGE_TASKS[args.stage])}")
    return args


def _cells_directory(args: argparse.Namespace) -> Path:
    return Path(args.directory) / f"stage{args.stage}" / "cells"


def _next_cells(args: argparse.Namespace) -> NextCells:
    """Stage 1 without --arms and --seeds follows its plan; everything else is a grid."""
    if args.stage == 1 and not args.arms and not args.seeds:
        return Plan(args.tasks).next_cells
    arms = args.arms or (list(ARMS) if args.stage == 1 else [OFF, _best_of_stage_1(args)])
    seeds = args.seeds or (Plan(args.tasks).first_seeds if args.stage == 1 else STAGE_2_SEEDS)
    wanted = sorted(Cell(seed, task, arm) for seed in range(seeds) for task in args.tasks for arm in arms)
    return lambda done: [cell for cell in wanted if cell not in done]


def _best_of_stage_1(args: argparse.Namespace) -> str:
    ranking = Plan(STAGE_TASKS[1]).ranking(read_cells(Path(args.directory) / "stage1" / "cells"))
    if not ranking:
        raise SystemExit(
            f"{args.directory} has no finished stage 1 to take the best arm from: run it, or give --arms off ARM"
        )
    return ranking[0]


def _wanted(args: argparse.Namespace, cell: Cell) -> Mapping[str, Any]:
    """What the cell would run with now; the field "run" of its result."""
    if args.stage == 2:
        from benchmarks.packaged_cell import settings_of

        return settings_of(cell, args.updates, args.model)
    from benchmarks.tiny_cell import UPDATES

    updates = args.updates or UPDATES[cell.task]
    return {
        "world": cell.task,
        "seed": cell.seed,
        "updates": updates,
        "problems": args.problems,
        "memory": memory_settings(cell.arm, updates),
    }


class Spawner:
    """Cells in processes of their own: threads are set before torch loads, and each leads a group that can be asked to stop."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._running: set[subprocess.Popen[str]] = set()

    def __call__(self, cell: Cell) -> None:
        """Returns when the cell's file is written. Raises RuntimeError with the process's last output."""
        started = time.monotonic()
        env = os.environ | dict.fromkeys(THREADS, "1") | {"TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            self._command(cell),
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._running.add(process)
        _, words = process.communicate()
        self._running.discard(process)
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {' | '.join(words.strip().splitlines()[-3:])}")
        print(f"{cell.task:11} {cell.arm:26} seed {cell.seed:2}  {time.monotonic() - started:6.1f} s", flush=True)

    def end(self) -> None:
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    def _command(self, cell: Cell) -> list[str]:
        args = self._args
        options = {"--stage": args.stage, "--directory": args.directory, "--problems": args.problems}
        options |= {"--cache": args.cache, "--updates": args.updates, "--model": args.model}
        command = [sys.executable, "-m", "benchmarks.memory_arms", "--cell", f"{cell.task}/{cell.arm}/{cell.seed}"]
        return command + [str(part) for name, value in options.items() if value for part in (name, value)]


def _one_cell(args: argparse.Namespace) -> int:
    task, arm, seed = args.cell.split("/")
    cell = Cell(int(seed), task, arm)
    directory = _cells_directory(args)
    if args.stage == 2:
        from benchmarks.packaged_cell import run_packaged

        result = run_packaged(cell, _wanted(args, cell), directory.parent / "runs")
    else:
        from benchmarks.tiny_cell import TinyRun, run_tiny

        result = run_tiny(TinyRun(**_wanted(args, cell)), args.cache)
    write_cell(directory, cell, result)
    return 0


def _check(args: argparse.Namespace) -> int:
    """The adapter of each task's tiny model after a few updates, made twice; memory on."""
    from benchmarks.in_process_run import train_in_process
    from benchmarks.tiny_cell import TinyRun, tiny_config
    from benchmarks.tiny_model import tiny_model
    from cluster.config.run_config import dump_config

    differ = 0
    for task in args.tasks:
        run = TinyRun(task, 0, args.updates or 3, args.problems, memory_settings("scaled", 3))
        with tempfile.TemporaryDirectory() as folder:
            hashes = {}
            for way in ("without Ray", "memr train"):
                config = tiny_config(run, tiny_model(task, 0, args.cache), Path(folder) / way.replace(" ", "-"))
                if way == "memr train":
                    file = Path(folder) / "config.toml"
                    file.write_text(dump_config(config))
                    subprocess.run(
                        [sys.executable, "-m", "cluster", "train", str(file)], check=True, stdout=subprocess.DEVNULL
                    )
                else:
                    train_in_process(config)
                hashes[way] = newest_adapter_hash(config.run_path / "adapters")
        differ += len(set(hashes.values())) > 1
        print(json.dumps({"task": task, "updates": run.updates} | hashes))
    print("NOT EQUAL" if differ else "equal")
    return 1 if differ else 0


def newest_adapter_hash(adapters: Path) -> str:
    from cluster.record.adapter_registry import adapter_folder

    weights = adapter_folder(adapters) / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
