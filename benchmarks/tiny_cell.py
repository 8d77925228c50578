"""One run of stage 1: a world, an arm, a seed -> held-out accuracies and what happened on the way.

    tiny model of the seed -> GRPO at lag 0 in this process -> the last three kept versions, evaluated one after the other

Fixed beforehand: each accuracy is the mean over the versions EVALUATED of the number of updates; greedy (n problems),
sampled (8 answers a problem at the sampling temperature) and pass@8 of the same answers. Evaluation comes after
training and its leases are numbered by version, so two arms of one seed answer the same problems with the same seeds.
"""

import asyncio
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process_run import InProcessRun, run_in_process
from benchmarks.tiny_model import WORLDS, tiny_model
from cluster.config.run_config import RunConfig
from cluster.flow.evaluation import EvalPlan, eval_leases, evaluate_groups
from contracts.problem import Sampling
from contracts.reports import EvalReport
from contracts.rollout import RolloutGroup

PASS_AT = 8
NUM_EVALUATIONS = 3
GROUPS_PER_BATCH = 32
UPDATES = {"sums": 150, "scratchpad": 80}


@dataclass(frozen=True, slots=True)
class TinyRun:
    """What a cell is, whole: its result depends on nothing else. problems: held out. memory: keys of [memory]."""

    world: str
    seed: int
    updates: int
    problems: int
    memory: Mapping[str, Any]


def tiny_config(run: TinyRun, model: Path, directory: Path) -> RunConfig:
    """Evaluation is off: `evaluate` does it afterwards."""
    world = WORLDS[run.world]
    sections: dict[str, dict[str, Any]] = {
        "run": {"directory": str(directory), "name": "cell", "seed": run.seed},
        "model": {"name": str(model)},
        "task": dict(world.task) | {"seed": run.seed, "max_prompt_tokens": 64},
        "actors": {
            "dtype": "float32",
            "rollouts_per_group": 8,
            "max_new_tokens": world.max_new_tokens,
            "max_batch_rows": 256,
            "torch_threads": 1,
        },
        "memory": {"encoder_dtype": "bfloat16", "torch_threads": 1} | dict(run.memory),
        "learner": {
            "num_updates": run.updates,
            "max_policy_lag": 0,
            "dtype": "float32",
            "lora_r": 8,
            "lora_alpha": 16,
            "learning_rate": 2e-3,
            "micro_batch_tokens": 16384,
            "logprob_chunk_tokens": 4096,
            "torch_threads": 1,
        },
        "cluster": {
            "groups_per_batch": GROUPS_PER_BATCH,
            "checkpoint_every_updates": 0,
            "adapters_on_disk": 2,
            "tensorboard": False,
        },
        "eval": {"problems": 0},
        "alarms": {"preflight_truncated": "warn"},
    }
    return RunConfig.model_validate(sections)


def evaluated_versions(updates: int) -> tuple[int, ...]:
    """The last three of ten even steps: of 150 updates 120, 135 and 150. Raises ValueError below ten updates."""
    if updates < 10:
        raise ValueError(f"{updates} updates leave no three versions to evaluate; give at least 10")
    return tuple(updates - round(updates / 10) * back for back in reversed(range(NUM_EVALUATIONS)))


def run_tiny(run: TinyRun, cache: Path | None = None) -> dict[str, Any]:
    """The cell's result as JSON-ready fields; its run directory is temporary."""
    model = tiny_model(run.world, run.seed, cache)
    start = json.loads((model / "start.json").read_text())
    with tempfile.TemporaryDirectory(prefix="memr-arms-") as directory:
        return asyncio.run(_run(run, tiny_config(run, model, Path(directory)))) | {"start": start}


async def _run(run: TinyRun, config: RunConfig) -> dict[str, Any]:
    started = time.perf_counter()
    versions = evaluated_versions(run.updates)
    trained = await run_in_process(config, versions)
    train_s = time.perf_counter() - started
    reports = [await evaluate(trained, version, config, run.problems) for version in versions]
    return {
        "run": dataclasses.asdict(run),
        **measures(reports),
        "evaluations": [{"version": v} | measures([report]) for v, report in zip(versions, reports, strict=True)],
        "seconds": time.perf_counter() - started,
        "train_s": train_s,
        "training": training_facts(trained.record.metrics),
    }


async def evaluate(
    trained: InProcessRun, version: int, config: RunConfig, problems: int
) -> tuple[EvalReport, EvalReport]:
    """Greedy and sampled reports of a kept version."""
    await trained.worker.adopt(trained.kept[version])
    limit, found = config.actors.max_new_tokens, []
    for samples, temperature in ((1, 0.0), (PASS_AT, config.actors.temperature)):
        plan = EvalPlan(version, version, samples, Sampling(temperature, limit))
        first_id = -1 - 2 * problems * version - (0 if samples == 1 else problems)
        held_out = trained.task.held_out(problems)
        leases = eval_leases(plan, held_out, first_id, config.run.seed, config.actors.lease_deadline_s)
        size = max(1, config.actors.max_batch_rows // samples)
        groups: list[RolloutGroup] = []
        for start in range(0, len(leases), size):
            groups += await trained.worker.sample(leases[start : start + size])
        found.append(evaluate_groups(plan, groups))
    return found[0], found[1]


def measures(reports: Sequence[tuple[EvalReport, EvalReport]]) -> dict[str, float]:
    """Means over evaluations, shares of 1."""
    return {
        "greedy": statistics.fmean(greedy.accuracy for greedy, _ in reports),
        "sampled": statistics.fmean(sampled.accuracy for _, sampled in reports),
        "pass@8": statistics.fmean(sampled.pass_at_k or 0.0 for _, sampled in reports),
    }


def training_facts(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of metrics.jsonl: at the start and the end (means of a tenth of the updates), silent groups, seconds."""
    tenth = max(1, len(metrics) // 10)
    first, last = metrics[:tenth], metrics[-tenth:]

    def mean(lines: Sequence[Mapping[str, Any]], key: str) -> float:
        found = [line[key] for line in lines if key != "entropy" or line["zero_variance_share"] < 1]
        return float(np.mean(found)) if found else 0.0  # an update without any signal runs no token: no entropy

    return {
        "accuracy_first": mean(first, "accuracy"),
        "accuracy_last": mean(last, "accuracy"),
        "entropy_first": mean(first, "entropy"),
        "entropy_last": mean(last, "entropy"),
        "silent_groups": mean(metrics, "zero_variance_share"),
        "tokens_last": mean(last, "completion_tokens_mean"),
        "moved_groups": float(
            np.mean([line["bonus_changed_share"] * line["bonus_groups"] / line["num_groups"] for line in metrics])
        ),
        "bonus_advantage_share": mean(metrics, "bonus_advantage_share"),
        "bonus": mean(metrics, "bonus"),
        "updates_skipped": sum(bool(line["skipped"]) for line in metrics),
        "step_s": mean(metrics, "step_s"),
        "update_s": mean(metrics, "update_s"),
        "wait_rollouts_s": mean(metrics, "wait_rollouts_s"),
        "wait_memory_s": mean(metrics, "wait_memory_s"),
        "curve": [round(mean(metrics[i : i + tenth], "accuracy"), 4) for i in range(0, len(metrics), tenth)],
    }
