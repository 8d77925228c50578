"""The rollout worker as a Ray actor: placement and threads, nothing else."""

from collections.abc import Sequence

import ray

from actors.config import ActorSettings
from actors.load import load_engine, load_worker_tokenizer
from actors.rollout_worker import RolloutWorker
from contracts.adapter import Adapter
from contracts.problem import Lease
from contracts.reports import WorkerReport
from contracts.rollout import RolloutGroup
from tasks.config import TaskSettings
from tasks.load import load_task, make_verifier


@ray.remote(max_restarts=0, num_cpus=0)
class RolloutWorkerActor:
    """One thread owns the engine; calls are served in the order in which they arrive."""

    def __init__(self, worker_id: str, settings: ActorSettings, task: TaskSettings, model_path: str) -> None:
        tokenizer = load_worker_tokenizer(settings, model_path)
        self._worker = RolloutWorker(
            worker_id=worker_id,
            engine=load_engine(settings, model_path, tokenizer),
            tokenizer=tokenizer,
            task=load_task(task),
            verifier=make_verifier(task),
            settings=settings,
        )

    def ready(self) -> None:
        """Returns once the constructor has finished."""

    def adopt(self, adapter: Adapter) -> None:
        self._worker.adopt(adapter)

    def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        return self._worker.sample(leases)

    def report(self) -> WorkerReport:
        return self._worker.report()
