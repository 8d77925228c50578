"""Ray behind the controller's handles: start the processes, translate their errors, end them.

A call's own error (EngineError, MemoryServiceError, ...) comes back as itself; a dead process becomes a
ActorLostError that names it.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.load import EngineNeeds
from actors.ray_actor import RolloutWorkerActor
from cluster.config.run_config import RunConfig
from cluster.handles import AdapterRef, WorkerHandle
from cluster.launch.placement import Node, Placement, shortages_of
from cluster.launch.process_env import thread_environment
from cluster.record.process_log import begin_log, last_error
from cluster.record.run_processes import RunProcesses
from contracts.adapter import Adapter
from contracts.errors import ActorLostError, LoadError, MemrError
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport, WorkerReport
from contracts.rollout import RolloutGroup, ScoredGroup

MAX_CALLS = 1000
"""Calls that one worker may have in hand; its loop serves them side by side."""


async def answer(name: str, reference: Any) -> Any:
    """Await a Ray reference; a dead process is a ActorLostError, a remote error is itself, and code that could not be
    imported a LoadError."""
    try:
        return await reference
    except RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, Exception) else error from error
    except RayActorError as error:
        if error.actor_init_failed:  # nothing of ours fails there: its code could not be imported on its node
            raise LoadError(f"the process of {name} cannot start on its node: {_last_line(error)}") from error
        raise ActorLostError(f"the process of {name} died: {_cause(error)}") from error


@dataclass(frozen=True, slots=True)
class RayWorker:
    """The worker port (`cluster.handles`) on a Ray actor. log: its process's log file."""

    worker_id: str
    actor: Any
    processes: RunProcesses
    log: Path | None = None

    async def start(self) -> None:
        self.processes.add(self.worker_id, await answer(self.worker_id, self.actor.process.remote()))
        try:
            await answer(self.worker_id, self.actor.start.remote())
        except MemrError as error:
            raise with_root_cause(error, self.log) from error

    async def adopt(self, adapter: AdapterRef) -> None:
        await answer(self.worker_id, self.actor.adopt.remote(adapter))

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        groups: list[RolloutGroup] = await answer(self.worker_id, self.actor.sample.remote(leases))
        return groups

    async def health(self, deadline_s: float) -> float:
        seconds: float = await answer(self.worker_id, self.actor.health.remote(deadline_s))
        return seconds

    async def report(self) -> WorkerReport:
        report: WorkerReport = await answer(self.worker_id, self.actor.report.remote())
        return report


def _last_line(error: RayActorError) -> str:
    """Of a remote traceback: the error itself."""
    return str(error).strip().splitlines()[-1].strip()


def with_root_cause(error: MemrError, log: Path | None) -> MemrError:
    """vLLM's engine dies in a process of its own and leaves "See root cause above", which is in the worker's log."""
    found = last_error(log) if log is not None and "root cause above" in str(error) else ""
    return type(error)(f"{error}. Its root cause: {found} ({log})") if found else error


def _cause(error: RayActorError) -> str:
    """Ray's account without its list of guesses."""
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    details = [line for line in told if line.startswith("Worker exit detail:")] or told[:1]
    return details[0].split(" There are some potential root causes")[0].removeprefix("Worker exit detail: ")


@dataclass(frozen=True, slots=True)
class RayMemory:
    """The memory port (`cluster.handles`) on a Ray actor."""

    actor: Any

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        scored: tuple[list[ScoredGroup], MemoryReport] = await answer("memory", self.actor.score.remote(groups))
        return scored

    async def save(self, directory: Path) -> str:
        name: str = await answer("memory", self.actor.save.remote(str(directory.resolve())))
        return name

    async def restore(self, snapshot: Path) -> None:
        await answer("memory", self.actor.restore.remote(str(snapshot.resolve())))


@dataclass(frozen=True, slots=True)
class RayLearner:
    """The learner port (`cluster.handles`) on a Ray actor."""

    actor: Any

    async def notes(self) -> tuple[str, ...]:
        notes: tuple[str, ...] = await answer("the learner", self.actor.notes.remote())
        return notes

    async def first_adapter(self) -> Adapter:
        adapter: Adapter = await answer("the learner", self.actor.publish.remote())
        return adapter

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        result: tuple[StepReport, Adapter] = await answer("the learner", self.actor.update.remote(groups))
        return result

    async def save(self, directory: Path) -> None:
        await answer("the learner", self.actor.save.remote(str(directory.resolve())))

    async def restore(self, directory: Path) -> None:
        await answer("the learner", self.actor.restore.remote(str(directory.resolve())))

    async def roll_back(self, directory: Path) -> Adapter:
        adapter: Adapter = await answer("the learner", self.actor.roll_back.remote(str(directory.resolve())))
        return adapter


@dataclass(frozen=True, slots=True)
class ServiceInputs:
    """What the parts need beside their settings. probe_tokens: what learner and engines score alike. room: tokens of the
    longest sequence that an engine may meet."""

    model_path: str
    template_hash: str
    probe_tokens: tuple[NDArray[np.int32], ...]
    room: int


@dataclass(frozen=True, slots=True)
class PlacementOptions:
    """Where processes go. one_machine: everything shares it, so no CPUs are reserved. core_node_id: the node that learner
    and memory must be on, None for any. env: of every process. logs: folder of their logs, None for Ray's own files. nodes:
    those that are there when it is called."""

    placement: Placement
    one_machine: bool = True
    core_node_id: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    logs: Path | None = None
    log_level: str = "info"
    nodes: Callable[[], Sequence[Node]] = tuple

    def shortages(self, workers: Mapping[str, int]) -> Sequence[str]:
        """What keeps so many, by pool, from running on the nodes of now; none are asked where none are known."""
        nodes = self.nodes()
        return shortages_of(self.placement, workers, nodes) if nodes else ()

    def log(self, name: str) -> Path | None:
        return None if self.logs is None else self.logs / f"{name}.log"

    def options(self, part: str) -> dict[str, Any]:
        """A bundle as Ray's options; a thousandth of a node's own resource ties a process to nodes that offer it."""
        bundle = self.placement.bundle(part)
        special = {bundle.node_resource: 0.001} if bundle.node_resource else {}
        cpus = 0 if self.one_machine else bundle.cpus
        return {"num_cpus": cpus, "num_gpus": bundle.gpus, "resources": special, "site": self}

    def core_options(self, part: str) -> dict[str, Any]:
        pinned = NodeAffinitySchedulingStrategy(self.core_node_id, soft=False) if self.core_node_id else "DEFAULT"
        return self.options(part) | {"scheduling_strategy": pinned, "log_name": part}


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """cluster.handles.WorkerStarter: one actor per worker, spread over the nodes that have what its pool needs."""

    config: RunConfig
    inputs: ServiceInputs
    site: PlacementOptions
    processes: RunProcesses

    def create(self, worker_id: str, pool: str) -> RayWorker:
        settings, task = self.config.actors.by_pool[pool], self.config.task
        needs = EngineNeeds(
            max_lora_rank=self.config.learner.lora_r,
            max_model_len=self.inputs.room,
            seed=zlib.crc32(f"{self.config.run.seed}/{worker_id}".encode()),
            max_adapters=self.config.adapters_kept,
            start_s=self.config.cluster.worker_start_s,
        )
        options = self.site.options(pool) | {"scheduling_strategy": "SPREAD", "max_concurrency": MAX_CALLS}
        options |= {"log_name": worker_id}
        actor = actor_with(RolloutWorkerActor, settings.torch_threads, options)
        started = actor.remote(worker_id, settings, task, self.inputs.model_path, needs)
        return RayWorker(worker_id, started, self.processes, self.site.log(worker_id))

    def end(self, worker: WorkerHandle) -> str:
        assert isinstance(worker, RayWorker)
        return end_actor(worker.worker_id, worker.actor, self.processes)


def end_actor(name: str, actor: Any, processes: RunProcesses) -> str:
    """Says what state the process was in. A stopped process, which no message ends, ends by its number.

    Raises ActorLostError where Ray itself is what died."""
    processes.check_ray()
    found = processes.what_became_of(name)
    if actor is not None:
        ray.kill(actor)
    processes.forget(name)
    return found


@dataclass(frozen=True, slots=True)
class _Logged:
    """An actor class whose actors write into a log of the run from their first call on."""

    actor_class: Any
    log: Path | None
    level: str

    def remote(self, *arguments: Any) -> Any:
        actor = self.actor_class.remote(*arguments)
        if self.log is not None:
            actor.__ray_call__.remote(begin_log, str(self.log.resolve()), self.level)
        return actor


def actor_with(actor_class: Any, threads: int, options: dict[str, Any]) -> _Logged:
    """options: Ray's, and `site` and `log_name` of ours (`PlacementOptions.options`)."""
    options = dict(options)
    site: PlacementOptions = options.pop("site")
    log = site.log(options.pop("log_name"))
    env = {**thread_environment(threads), **site.env}
    return _Logged(actor_class.options(runtime_env={"env_vars": env}, **options), log, site.log_level)
