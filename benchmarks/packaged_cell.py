"""One run of stage 2: the packaged 135M model through the real `memr train`, at lag 0.

A run directory that stands half-way is resumed with `memr resume`; one that is finished is only read. The accuracies
are means over three versions, the last and those 5 and 10 updates before it: greedy, sampled (8 answers a problem) and
pass@8. They are evaluated when the run has ended (`memr eval --policy-version`), since all others would only cost time;
what is evaluated is kept in the run's folder, and not evaluated again.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arms_plan import Cell, memory_settings
from benchmarks.tiny_cell import NUM_EVALUATIONS, PASS_AT, training_facts
from cluster.config.run_config import load_config
from cluster.record.events.event import Severity
from cluster.record.run_view import RunView, read_run

CONFIGS = {"dense": Path("configs/quickstart.toml"), "sparse": Path("configs/sparse.toml")}
EVERY_UPDATES = 5
STOP_S = 600.0
"""For the update under way and the checkpoint."""
PROBLEMS = {"dense": (200, 200), "sparse": (1000, 250)}
"""Held-out problems, greedy and pass@8: the dense task has 235."""
EVALUATIONS_FILE = "arm_evaluations.jsonl"


def settings_of(cell: Cell, updates: int | None = None, model: str | None = None) -> dict[str, Any]:
    """What the cell changes of its configuration, by dotted name. updates, model: in place of the configuration's."""
    updates = updates or load_config(CONFIGS[cell.task]).learner.num_updates
    changed: dict[str, Any] = {
        "run.seed": cell.seed,
        "task.seed": cell.seed,
        "learner.max_policy_lag": 0,
        "learner.num_updates": updates,
        "eval.problems": 0,
        "eval.pass_at_k": 0,
        "cluster.adapters_on_disk": EVERY_UPDATES * (NUM_EVALUATIONS - 1) + 1,
        "cluster.checkpoint_every_updates": 5,
        "alarms.entropy": "warn",  # a policy that collapses is a result of the arm: its run must come to its end
        "alarms.length_vanishes": "warn",
    }
    changed |= {"model.name": model} if model else {}
    return changed | {f"memory.{key}": value for key, value in memory_settings(cell.arm, updates).items()}


def run_path(directory: Path, cell: Cell) -> Path:
    return directory / f"{cell.task}-{cell.arm}-seed{cell.seed}"


def run_packaged(cell: Cell, settings: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Start, take up or only read; the result as JSON-ready fields. settings: of `settings_of`.

    Raises CalledProcessError where memr fails."""
    path = run_path(directory, cell)
    if not (path / "manifest.json").exists():
        _memr(_train(cell, settings, path))
    elif not read_run(path).finished:
        _memr(["resume", str(path)])
    record = read_run(path)
    return {
        "run": dict(settings),
        **measures(evaluate_last(path, cell.task, int(settings["learner.num_updates"]))),
        "seconds": run_seconds(record),
        "training": training_facts(record.metrics),
        "incidents": sum(event.severity is Severity.PROBLEM for event in record.events),
    }


def evaluate_last(path: Path, task: str, last: int) -> list[dict[str, Any]]:
    """The EvalReports of three versions, greedy and sampled, those of an earlier life included."""
    from cluster.commands.evaluate import EvalRequest, evaluate_target

    file = path / EVALUATIONS_FILE
    reports = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(report["policy_version"], report["k"]) for report in reports}
    for version in range(last - EVERY_UPDATES * (NUM_EVALUATIONS - 1), last + 1, EVERY_UPDATES):
        for problems, samples in zip(PROBLEMS[task], (1, PASS_AT), strict=True):
            if (version, samples if samples > 1 else None) not in done:
                reports.append(evaluate_target(str(path), EvalRequest(problems, None, samples), policy_version=version))
                with file.open("a") as handle:
                    handle.write(json.dumps(reports[-1]) + "\n")
    return reports


def measures(reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the versions. reports: EvalReports, greedy ones without k and sampled ones with it."""
    return {
        "greedy": statistics.fmean(report["accuracy"] for report in reports if not report["k"]),
        "sampled": statistics.fmean(report["accuracy"] for report in reports if report["k"]),
        "pass@8": statistics.fmean(report["pass_at_k"] for report in reports if report["k"]),
    }


def run_seconds(record: RunView) -> float:
    """Of its updates; time between two lives of a run does not count."""
    return float(sum(line["step_s"] for line in record.metrics))


def _train(cell: Cell, settings: Mapping[str, Any], path: Path) -> list[str]:
    place = {"run.directory": str(path.parent), "run.name": path.name, "cluster.tensorboard": False}
    command = ["train", str(CONFIGS[cell.task])]
    for name, value in (dict(settings) | place).items():
        command += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    return command


def _memr(arguments: Sequence[str]) -> None:
    """An interrupt reaches memr too, which writes its checkpoint: it is waited for, not killed."""
    command = [sys.executable, "-m", "cluster", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait(STOP_S)
        raise
    if code:
        raise subprocess.CalledProcessError(code, command)
