"""A run without processes: the real controller on fakes, for tests of everything around it."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig
from cluster.flow.controller import Controller
from cluster.flow.stages import RunInputs
from cluster.handles import Services
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.checkpoint import log_floor
from cluster.record.history import History
from cluster.record.recorder import Recorder
from cluster.record.resume import read_recovered_run
from cluster.record.run_log import RunLog
from contracts.adapter import Adapter
from tests.fakes import CountingTask, FakeLearner, FakeMemory, FakeWorker, FakeWorkers

Events = list[tuple[Any, ...]]


def make_config(path: Path, *, lag: int = 0, updates: int = 4, **sections: dict[str, Any]) -> RunConfig:
    """A run of 4 groups of 2 rollouts an update on the scripted engine. sections: laid over it."""
    base: dict[str, dict[str, Any]] = {
        "run": {"directory": str(path), "name": "r"},
        "model": {"name": "scripted"},
        "actors": {"engine": "scripted", "rollouts_per_group": 2, "max_batch_rows": 4, "max_new_tokens": 8},
        "memory": {"profile": "memr"},
        "learner": {"num_updates": updates, "max_policy_lag": lag},
        "cluster": {"groups_per_batch": 4, "checkpoint_every_updates": 0, "tensorboard": False},
        "eval": {"problems": 0},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return RunConfig.model_validate(base)


class Run:
    """A controller on fakes, and what it left behind. learner: one, or a function of the recorder that makes it."""

    def __init__(self, config: RunConfig, **fakes: Any) -> None:
        self.events: Events = []
        self.workers = FakeWorkers(fakes.get("workers", [FakeWorker()]), self.events)
        self.memory = fakes.get("memory", FakeMemory())
        if self.memory is not None:
            self.memory.events = self.events
        self.path = config.run_path
        self.path.mkdir(parents=True, exist_ok=True)
        self.recorder = Recorder(self.path)
        learner = fakes.get("learner") or FakeLearner(config.learner.max_policy_lag)
        self.learner = learner(self.recorder) if callable(learner) else learner
        self.learner.events = self.events
        registry = AdapterRegistry(self.path / "adapters", _itself, keep=2)
        services = Services(self.workers, self.memory, self.learner)
        self.history = History(RunLog(self.path / "log", floor=log_floor(self.path)))
        past, task = read_recovered_run(self.path, config), fakes.get("task") or CountingTask()
        clock = fakes.get("clock", time.monotonic)
        given = RunInputs(config, task, services, registry, self.recorder, self.history, clock)
        self.controller = Controller(given, past)

    async def run(self) -> None:
        try:
            async with asyncio.timeout(30):
                await self.controller.run()
        finally:
            self.recorder.status(self.controller.status())
            self.close()

    def close(self) -> None:
        self.recorder.close()
        self.history.close()

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]


def _itself(adapter: Adapter) -> Adapter:
    return adapter
