"""Ray behind the controller's handles: start the processes, translate their errors, end them.

A call's own error (EngineError, MemoryServiceError, ...) comes back as itself; a dead process becomes a
PartLostError that names it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from actors.ray_actor import RolloutWorkerActor
from cluster.config import RunConfig
from cluster.parts import AdapterRef, Parts
from contracts.adapter import Adapter
from contracts.errors import PartLostError
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport, WorkerReport
from contracts.rollout import RolloutGroup, ScoredGroup
from learner.ray_actor import LearnerActor
from memory_service.ray_actor import MemoryActor

START_TIMEOUT_S = 600.0
"""Longest a process may take to load its model before the run is called off."""


async def answer(name: str, reference: Any) -> Any:
    """Await a Ray reference; a dead process is a PartLostError, a remote error is itself."""
    try:
        return await reference
    except RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from error
    except RayActorError as error:
        raise PartLostError(
            f"the process of {name} died: {error}. Its last lines are in the run's logs; `dmesg` tells whether the "
            "system ran out of memory"
        ) from error


@dataclass(frozen=True, slots=True)
class RayWorker:
    worker_id: str
    actor: Any

    async def adopt(self, adapter: AdapterRef) -> None:
        await answer(self.worker_id, self.actor.adopt.remote(adapter))

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        groups: list[RolloutGroup] = await answer(self.worker_id, self.actor.sample.remote(leases))
        return groups

    async def report(self) -> WorkerReport:
        report: WorkerReport = await answer(self.worker_id, self.actor.report.remote())
        return report


@dataclass(frozen=True, slots=True)
class RayMemory:
    actor: Any

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        scored: tuple[list[ScoredGroup], MemoryReport] = await answer("memory", self.actor.score.remote(groups))
        return scored

    async def save(self, directory: Path) -> str:
        name: str = await answer("memory", self.actor.save.remote(str(directory.resolve())))
        return name


@dataclass(frozen=True, slots=True)
class RayLearner:
    actor: Any

    async def first_adapter(self) -> Adapter:
        adapter: Adapter = await answer("the learner", self.actor.publish.remote())
        return adapter

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        result: tuple[StepReport, Adapter] = await answer("the learner", self.actor.update.remote(groups))
        return result

    async def save(self, directory: Path) -> None:
        await answer("the learner", self.actor.save.remote(str(directory.resolve())))


@dataclass(frozen=True, slots=True)
class LearnerInputs:
    """What the learner needs beside its settings."""

    template_hash: str
    probe_tokens: tuple[NDArray[np.int32], ...]


async def start_parts(config: RunConfig, model_path: str, inputs: LearnerInputs) -> Parts:
    """Start every process side by side and wait until each has loaded. Raises what a constructor raised."""
    workers = [
        RayWorker(
            name,
            _actor(RolloutWorkerActor, config.actors.torch_threads).remote(
                name, config.actors, config.task, model_path
            ),
        )
        for name in (f"worker-{i}" for i in range(config.actors.num_workers))
    ]
    memory = None
    if config.memory.enabled:
        memory = RayMemory(_actor(MemoryActor, config.memory.torch_threads).remote(config.memory))
    learner = RayLearner(
        _actor(LearnerActor, config.learner.torch_threads).remote(
            config.learner,
            model_path,
            config.run.seed,
            inputs.template_hash,
            inputs.probe_tokens,
            config.actors.max_new_tokens,
        )
    )
    started = {worker.worker_id: worker.actor for worker in workers} | {"the learner": learner.actor}
    if memory is not None:
        started["memory"] = memory.actor
    ready = [answer(name, actor.ready.remote()) for name, actor in started.items()]
    await asyncio.wait_for(asyncio.gather(*ready), START_TIMEOUT_S)
    return Parts(tuple(workers), memory, learner)


def end_parts(parts: Parts) -> None:
    """End the processes that `start_parts` started, and no others."""
    for part in (*parts.workers, parts.memory, parts.learner):
        if isinstance(part, RayWorker | RayMemory | RayLearner):
            ray.kill(part.actor)


def _actor(actor_class: Any, threads: int) -> Any:
    """Thread counts must be in the environment before numpy, torch or faiss load."""
    env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return actor_class.options(runtime_env={"env_vars": env | {"TOKENIZERS_PARALLELISM": "false"}})
