"""The rollout worker as a Ray actor: an event loop, placement, and an end without orphans; nothing else."""

from collections.abc import Sequence

import ray

from actors.child_guard import guard_children
from actors.config import ActorSettings
from actors.load import EngineNeeds, load_worker_tokenizer, start_engine
from actors.rollout_worker import RolloutWorker
from contracts.adapter import Adapter
from contracts.problem import Lease
from contracts.process import ProcessId, own_process
from contracts.reports import WorkerReport
from contracts.rollout import RolloutGroup
from loading.load_errors import loading
from tasks.config import TaskSettings
from tasks.load import load_task, make_verifier


@ray.remote(max_restarts=0, num_cpus=0)
class RolloutWorkerActor:
    """Calls overlap on the loop; the engine decides what decodes together."""

    def __init__(
        self, worker_id: str, settings: ActorSettings, task: TaskSettings, model_path: str, needs: EngineNeeds
    ) -> None:
        self._inputs = (worker_id, settings, task, model_path, needs)

    async def process(self) -> ProcessId:
        """Answers before the model is loaded."""
        return own_process()

    async def start(self) -> None:
        """Load the model. Raises what the user must hear: ConfigError, LoadError, EngineError."""
        worker_id, settings, task, model_path, needs = self._inputs
        with loading(f"the rollout worker {worker_id} cannot start"):
            scratch = guard_children()
            tokenizer = load_worker_tokenizer(settings, model_path)
            self._worker = RolloutWorker(
                worker_id=worker_id,
                engine=await start_engine(settings, model_path, tokenizer, needs, scratch),
                tokenizer=tokenizer,
                task=load_task(task),
                verifier=make_verifier(task),
                settings=settings,
            )

    async def adopt(self, adapter: Adapter) -> None:
        await self._worker.adopt(adapter)

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        return await self._worker.sample(leases)

    async def health(self, deadline_s: float) -> float:
        return await self._worker.health(deadline_s)

    async def report(self) -> WorkerReport:
        return self._worker.report()
