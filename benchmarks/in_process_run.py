"""A run without Ray: the real worker, memory, learner and controller in this process, for runs of a minute.

    RunConfig -> Services of plain objects -> Controller.run -> InProcessRun: its directory, the versions that were asked for

At lag 0 sampling, scoring and updating alternate anyway, so nothing is lost by one process, and Ray's start is saved.
The adapters are byte for byte those of `memr train` (`python -m benchmarks.memory_arms --check`).
Simplified: what dies is not brought back.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.load import EngineNeeds, load_worker_tokenizer, start_engine
from actors.rollout_worker import RolloutWorker
from cluster.config.run_config import RunConfig
from cluster.flow.controller import Controller
from cluster.flow.stages import RunInputs
from cluster.handles import Services, WorkerHandle
from cluster.launch.context_budget import find_room
from cluster.launch.model_store import resolve_model
from cluster.launch.probes import probe_sequences
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.history import History
from cluster.record.recorder import Recorder
from cluster.record.run_dir import create_run
from cluster.record.run_log import RunLog
from cluster.record.run_view import RunView, read_run
from contracts.adapter import Adapter
from contracts.ports import PolicyLearner, Task, Tokenizer
from contracts.problem import Lease
from contracts.reports import MemoryReport, StepReport, WorkerReport
from contracts.rollout import RolloutGroup, ScoredGroup
from learner.load import load_learner
from memory_service.encoder import load_encoder
from memory_service.service import EpisodicMemory
from tasks.load import load_task, make_verifier
from tasks.task_data import look_through


@dataclass(frozen=True, slots=True)
class InProcessRun:
    """record: what the run left on disk. kept: adapters of the versions asked for. worker: still there, to evaluate."""

    record: RunView
    kept: dict[int, Adapter]
    worker: RolloutWorker
    task: Task


@dataclass(slots=True)
class LocalWorker:
    """cluster.handles.WorkerHandle around a RolloutWorker of this process."""

    worker_id: str
    worker: RolloutWorker

    async def start(self) -> None: ...

    async def adopt(self, adapter: Adapter) -> None:
        await self.worker.adopt(adapter)

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        return await self.worker.sample(leases)

    async def health(self, deadline_s: float) -> float:
        return await self.worker.health(deadline_s)

    async def report(self) -> WorkerReport:
        return self.worker.report()


@dataclass(slots=True)
class OneWorker:
    """cluster.handles.WorkerStarter of the one worker there is."""

    worker: RolloutWorker

    def create(self, worker_id: str, kind: str) -> LocalWorker:
        return LocalWorker(worker_id, self.worker)

    def end(self, worker: WorkerHandle) -> str:
        return "it runs in this process"


@dataclass(slots=True)
class LocalMemory:
    """cluster.handles.MemoryHandle around an EpisodicMemory of this process."""

    memory: EpisodicMemory

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return self.memory.score(groups), self.memory.report()

    async def save(self, directory: Path) -> str:
        return self.memory.save(directory)

    async def restore(self, snapshot: Path) -> None:
        self.memory.restore(snapshot)


@dataclass(slots=True)
class LocalLearner:
    """cluster.handles.LearnerHandle around a learner of this process; keeps the adapters of the versions in `wanted`."""

    learner: PolicyLearner
    wanted: Collection[int] = ()
    kept: dict[int, Adapter] = field(default_factory=dict)

    async def first_adapter(self) -> Adapter:
        return self._kept(self.learner.publish())

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report = self.learner.step(groups)
        return report, self._kept(self.learner.publish())

    async def save(self, directory: Path) -> None:
        self.learner.save(directory)

    async def restore(self, directory: Path) -> None:
        self.learner.restore(directory)

    async def roll_back(self, directory: Path) -> Adapter:
        self.learner.roll_back(directory)
        return self._kept(self.learner.publish())

    def _kept(self, adapter: Adapter) -> Adapter:
        if adapter.manifest.policy_version in self.wanted:
            self.kept[adapter.manifest.policy_version] = adapter
        return adapter


async def run_in_process(config: RunConfig, keep_versions: Collection[int] = ()) -> InProcessRun:
    """Train to the end in a fresh run directory. The caller closes what it does with the worker by leaving the process.

    Raises what the services raise; ConfigError where the run directory is taken, or the model's context is too short."""
    model_path = resolve_model(config.model.name)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    task = load_task(config.task)
    longest = look_through(task, config.eval.problems).check_prompts(tokenizer, config.task.max_prompt_tokens).max
    room = find_room(config, tokenizer, model_path, longest)
    create_run(config, {"model_path": model_path, "seed": config.run.seed, "template_hash": tokenizer.fingerprint})
    worker = await _worker(config, model_path, tokenizer, task, room)
    learner = LocalLearner(_learner(config, model_path, tokenizer, task), keep_versions)
    memory = LocalMemory(_memory(config)) if config.memory.enabled else None
    recorder, log = Recorder(config.run_path), RunLog(config.run_path / "log")
    history = History(log)
    try:
        registry = AdapterRegistry(
            config.run_path / "adapters", lambda adapter: adapter, config.cluster.adapters_on_disk
        )
        services = Services(OneWorker(worker), memory, learner)
        controller = Controller(RunInputs(config, task, services, registry, recorder, history))
        await controller.run()
    finally:
        recorder.close()
        history.close()
    return InProcessRun(read_run(config.run_path), learner.kept, worker, task)


def train_in_process(config: RunConfig) -> RunView:
    """The same for who only wants to know what the run left on disk."""
    return asyncio.run(run_in_process(config)).record


def _learner(config: RunConfig, model_path: str, tokenizer: Tokenizer, task: Task) -> PolicyLearner:
    return load_learner(
        config.learner,
        model_path,
        config.run.seed,
        tokenizer.fingerprint,
        probe_sequences(config, task, tokenizer),
        config.actors.max_new_tokens,
        config.memory.bonus_rule,
    )


def _memory(config: RunConfig) -> EpisodicMemory:
    return EpisodicMemory(config.memory, load_encoder(config.memory), value_of_correct=config.value_of_correct)


async def _worker(config: RunConfig, model_path: str, tokenizer: Tokenizer, task: Task, room: int) -> RolloutWorker:
    needs = EngineNeeds(config.learner.lora_r, room, max_adapters=config.adapters_kept)
    return RolloutWorker(
        worker_id="local",
        engine=await start_engine(config.actors, model_path, tokenizer, needs),
        tokenizer=tokenizer,
        task=task,
        verifier=make_verifier(config.task),
        settings=config.actors,
    )
