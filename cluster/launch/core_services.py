"""Memory and learner as processes: started, brought back when they are lost, ended."""

import asyncio
from typing import Any

from cluster.config.run_config import RunConfig
from cluster.handles import Services
from cluster.launch.ray_handles import (
    PlacementOptions,
    RayLearner,
    RayMemory,
    RayWorkers,
    ServiceInputs,
    actor_with,
    answer,
    end_actor,
)
from cluster.record.events.failures import PartLost, Stopped
from cluster.record.events.training import LearnerSays
from cluster.record.recorder import Recorder
from cluster.record.resume import read_recovered_run
from cluster.record.run_processes import RunProcesses
from cluster.recovery.failure_policy import Budget, Component
from cluster.recovery.restartable import RestartableLearner, RestartableMemory, RestartPolicy
from contracts.errors import ActorLostError, LoadError, MemrError
from learner.ray_actor import LearnerActor
from loading.load_errors import out_of_memory
from memory_service.ray_actor import MemoryActor


class CoreServices:
    """Starts and ends memory and learner, of which a run has one each."""

    def __init__(
        self, config: RunConfig, inputs: ServiceInputs, site: PlacementOptions, processes: RunProcesses
    ) -> None:
        self._config, self._inputs, self.site, self.processes = config, inputs, site, processes
        self._actors: dict[str, Any] = {}

    async def start_learner(self) -> RayLearner:
        """Returns when it has loaded. Raises what its start raised."""
        config, inputs = self._config, self._inputs
        actor = actor_with(LearnerActor, config.learner.torch_threads, self.site.core_options("learner")).remote(
            config.learner,
            inputs.model_path,
            config.run.seed,
            inputs.template_hash,
            inputs.probe_tokens,
            config.actors.max_new_tokens,
            config.memory.bonus_rule,
        )
        return RayLearner(await self._loaded("learner", actor))

    async def start_memory(self) -> RayMemory:
        """Returns when it has loaded. Raises what its start raised."""
        actor = actor_with(MemoryActor, self._config.memory.torch_threads, self.site.core_options("memory"))
        return RayMemory(await self._loaded("memory", actor.remote(self._config.memory, self._config.value_of_correct)))

    async def _loaded(self, name: str, actor: Any) -> Any:
        self._actors[name] = actor
        limit_s = self._config.cluster.worker_start_s
        try:
            async with asyncio.timeout(limit_s):
                self.processes.add(name, await answer(f"the {name}", actor.process.remote()))
                await answer(f"the {name}", actor.start.remote())
        except TimeoutError as error:
            raise ActorLostError(
                f"the {name} did not load within cluster.worker_start_s = {limit_s:.0f} s; raise it for a slow disk"
            ) from error
        except LoadError as error:
            raise refusal(error, begun=self._begun) from error
        except ActorLostError as error:
            self.processes.check_ray()
            found = self.processes.what_became_of(name)
            lost = ActorLostError(f"the {name} died while it loaded: {found}")
            raise refusal(lost, begun=self._begun) from error
        return actor

    @property
    def _begun(self) -> bool:
        """It was loaded before, on this machine or on one like it: there is a checkpoint."""
        return any((self._config.run_path / "checkpoints").glob("step-*"))

    def end(self, name: str) -> str:
        """Says what state the process was in."""
        return end_actor(name, self._actors.pop(name, None), self.processes)

    def end_all(self) -> None:
        """The fleet has ended its workers. No other process is touched."""
        for name in list(self._actors):
            self.end(name)


def refusal(error: MemrError, *, begun: bool) -> MemrError:
    """What a part that did not load means: LoadError ends the run, ActorLostError is tried again within the restart budget.

    What does not load when a run begins would not load at another try, nor does want of memory pass. What has begun did
    load before: a busy card, a file system that was away or memory that others took may be back."""
    if begun:
        return ActorLostError(str(error)) if isinstance(error, LoadError) else error
    if not out_of_memory(error) or isinstance(error, LoadError):
        return error
    return LoadError(f"{error}. Choose a smaller model or data type, or make room: `memr doctor`")


async def start_services(core: CoreServices, config: RunConfig, inputs: ServiceInputs, recorder: Recorder) -> Services:
    """Start memory and learner side by side and wait until both have loaded; both are brought back when they are lost.

    Workers are started by the fleet, from `Services.workers`.
    """
    cluster = config.cluster
    budget = Budget(cluster.part_restarts, cluster.part_restart_window_s)

    def care(part: Component, start: Any, limit_s: float, limit_name: str) -> RestartPolicy[Any]:
        return RestartPolicy(
            part=part,
            start=start,
            end=lambda: core.end(part.value),
            past=lambda: read_recovered_run(config.run_path, config),
            budget=budget,
            limit_s=limit_s,
            limit_name=limit_name,
            recorder=recorder,
        )

    starts = [core.start_learner(), *([core.start_memory()] if config.memory.enabled else [])]
    try:
        learner, *memories = await asyncio.gather(*starts)
    except MemrError as error:  # told before Ray is ended, whose end would pass for the cause
        recorder.event(PartLost(str(error)) if isinstance(error, ActorLostError) else Stopped(str(error)))
        raise
    assert isinstance(learner, RayLearner)
    for note in await learner.notes():
        recorder.event(LearnerSays(note))
    memory = memories[0] if memories else None
    assert isinstance(memory, RayMemory | None)
    of_learner = care(Component.LEARNER, core.start_learner, cluster.learner_call_s, "learner_call_s")
    of_memory = care(Component.MEMORY, core.start_memory, cluster.memory_call_s, "memory_call_s")
    return Services(
        workers=RayWorkers(config, inputs, core.site, core.processes),
        memory=RestartableMemory(memory, of_memory) if memory is not None else None,
        learner=RestartableLearner(learner, of_learner),
        shortages=core.site.shortages,
    )
