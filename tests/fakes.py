"""Stand-ins that record the order of events: parts for the controller, groups for everybody."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.errors import AdapterMissingError, EngineError
from contracts.ports import Environment, EnvironmentReply
from contracts.problem import Lease, Problem, Purpose
from contracts.reports import MemoryReport, StepReport, WorkerReport
from contracts.rollout import BonusStage, FinishReason, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Scored, Verdict


def make_rollout(
    rollout_id: str = "0/0/0",
    *,
    tokens: int = 3,
    verdict: Verdict | None = None,
    finish: FinishReason = FinishReason.STOP,
    text: str = "4",
) -> Rollout:
    return Rollout(
        rollout_id=rollout_id,
        tokens_T=np.arange(tokens, dtype=np.int32),
        logprobs_T=np.full(tokens, -0.5, np.float32),
        policy_mask_T=np.ones(tokens, np.bool_),
        turn_ends_U=np.array([tokens], np.int32),
        outcomes=(TurnOutcome.DONE,),
        finish_reason=finish,
        text=text,
        verdict=verdict if verdict is not None else Scored(1.0, True, {"correctness": 1.0}),
        seed=7,
    )


def make_group(
    lease_id: int = 0,
    *,
    rewards: Sequence[float] = (1.0, 0.0),
    version: int = 0,
    purpose: Purpose = Purpose.TRAIN,
    attempt: int = 0,
    question: str | None = None,
    finish: FinishReason = FinishReason.STOP,
    tokens: int = 3,
) -> RolloutGroup:
    return RolloutGroup(
        lease_id=lease_id,
        problem_id=f"problem-{lease_id}",
        question=question or f"question {lease_id}?",
        prompt_P=np.array([1, 2], np.int32),
        rollouts=tuple(
            make_rollout(
                f"{lease_id}/{attempt}/{i}",
                tokens=tokens,
                verdict=Scored(r, r > 0.5, {"correctness": r}),
                finish=finish,
                text=f"answer {lease_id} {i}",
            )
            for i, r in enumerate(rewards)
        ),
        policy_version=version,
        purpose=purpose,
        temperature=1.0,
        worker_id="fake",
        attempt=attempt,
        started_s=0.0,
        finished_s=1.0,
    )


def make_scored(
    group: RolloutGroup, bonus: float = 0.0, stage: BonusStage = BonusStage.BEFORE_NORMALISATION
) -> ScoredGroup:
    size = len(group.rollouts)
    zeros = np.zeros(size, np.float32)
    return ScoredGroup(group, zeros, zeros, np.full(size, bonus, np.float32), stage, memory_version=0)


def make_adapter(version: int, weights: bytes = b"weights") -> Adapter:
    weights = save_tensors({f"v{version}": np.frombuffer(weights, np.uint8)})
    digest = hashlib.sha256(weights).hexdigest()
    manifest = AdapterManifest(
        version, digest, len(weights), "base", LoraShape(4, 8.0, ("q_proj",)), "float32", "template"
    )
    return Adapter(manifest, weights)


class CountingTask:
    """Problems "0", "1", ... without end."""

    def train_problem(self, index: int) -> Problem:
        return Problem(str(index), f"question {index}?", str(index), ({"role": "user", "content": str(index)},))

    @property
    def num_train(self) -> int | None:
        return None

    def held_out(self, n: int) -> list[Problem]:
        return [Problem(f"held-{i}", f"held {i}?", "0", ({"role": "user", "content": "h"},)) for i in range(n)]

    def environment(self, problem: Problem) -> Environment:
        return OneTurn()


class OneTurn:
    def step(self, policy_text: str) -> EnvironmentReply:
        return EnvironmentReply(TurnOutcome.DONE)


@dataclass
class FakeWorker:
    """Answers after `delay_s(lease)`; raises what `fault(lease)` returns."""

    worker_id: str = "w0"
    events: list[tuple[Any, ...]] = field(default_factory=list)
    delay_s: Callable[[Lease], float] = lambda lease: 0.0
    fault: Callable[[Lease], Exception | None] = lambda lease: None
    finish: Callable[[Lease], FinishReason] = lambda lease: FinishReason.STOP
    keep: int = 3
    versions: list[int] = field(default_factory=list)
    refuse: Callable[[int], Exception | None] = lambda version: None
    start_fault: Exception | None = None
    start_s: float = 0.0
    sick: bool = False

    async def start(self) -> None:
        await asyncio.sleep(self.start_s)
        if self.start_fault is not None:
            raise self.start_fault

    async def health(self, deadline_s: float) -> float:
        self.events.append(("health", self.worker_id))
        if self.sick:
            raise EngineError("no token came")
        return 0.0

    async def adopt(self, adapter: Adapter) -> None:
        version = adapter.manifest.policy_version
        if (error := self.refuse(version)) is not None:
            self.events.append(("refuse", self.worker_id, version))
            raise error
        self.versions = sorted({*self.versions, version})[-self.keep :]
        self.events.append(("adopt", self.worker_id, version))

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        if not self.versions:
            raise AdapterMissingError("no adapter at all")
        version = leases[0].policy_version
        self.events.append(("sample", self.worker_id, version, tuple(lease.lease_id for lease in leases)))
        await asyncio.sleep(max(self.delay_s(lease) for lease in leases))
        for lease in leases:
            if (error := self.fault(lease)) is not None:
                raise error
        return [
            make_group(
                lease.lease_id,
                rewards=[float(i % 2) for i in range(lease.num_rollouts)],
                version=version,
                purpose=lease.purpose,
                attempt=lease.attempt,
                finish=self.finish(lease),
            )
            for lease in leases
        ]

    async def report(self) -> WorkerReport:
        return WorkerReport(self.worker_id, 0, 0, 0, 0, 0.0, 0.0, 0, 0.0)


@dataclass
class FakeWorkers:
    """cluster.handles.WorkerStarter: hands out the given workers in order, then makes new ones with `make`."""

    ready: list[FakeWorker]
    events: list[tuple[Any, ...]] = field(default_factory=list)
    make: Callable[[str], FakeWorker] = lambda worker_id: FakeWorker(worker_id)
    made: int = 0

    def create(self, worker_id: str, kind: str) -> FakeWorker:
        worker = self.ready[self.made] if self.made < len(self.ready) else self.make(worker_id)
        self.made += 1
        worker.events = self.events
        return worker

    def end(self, worker: Any) -> str:
        self.events.append(("end", worker.worker_id))
        return "process 1 is gone"


@dataclass
class FakeMemory:
    events: list[tuple[Any, ...]] = field(default_factory=list)
    delay_s: float = 0.0
    version: int = 0

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        self.events.append(("score", tuple(group.lease_id for group in groups)))
        await asyncio.sleep(self.delay_s)
        scored = [
            replace(make_scored(group, bonus=0.25), memory_version=self.version + i) for i, group in enumerate(groups)
        ]
        self.version += len(groups)
        report = MemoryReport(self.version, 2 * self.version, self.version, 0, 0, 0, self.version, 0, 0, 0.0, 0.0)
        return scored, report

    async def save(self, directory: Path) -> str:
        (directory / "snapshot-1").mkdir(parents=True)
        (directory / "snapshot-1" / "manifest.json").write_text(json.dumps({"memory_version": self.version}))
        return "snapshot-1"

    async def restore(self, snapshot: Path) -> None:
        self.version = json.loads((snapshot / "manifest.json").read_text())["memory_version"]


@dataclass
class FakeLearner:
    """Checks the lag bound itself, as the real one does, and records what it was given."""

    max_policy_lag: int
    events: list[tuple[Any, ...]] = field(default_factory=list)
    delay_s: float = 0.0
    version: int = 0
    batches: list[list[ScoredGroup]] = field(default_factory=list)

    async def first_adapter(self) -> Adapter:
        return make_adapter(self.version)

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        await asyncio.sleep(self.delay_s)
        lags = [self.version - scored.group.policy_version for scored in groups]
        assert max(lags) <= self.max_policy_lag, f"lag {max(lags)} beyond {self.max_policy_lag}"
        self.batches.append(list(groups))
        self.version += 1
        self.events.append(("update", self.version, tuple(scored.group.lease_id for scored in groups)))
        return make_step_report(self.version, lags), make_adapter(self.version)

    async def save(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "learner.json").write_text(json.dumps({"policy_version": self.version}))

    async def restore(self, directory: Path) -> None:
        self.version = json.loads((directory / "learner.json").read_text())["policy_version"]

    async def roll_back(self, directory: Path) -> Adapter:
        self.events.append(("roll_back", directory.parent.name))
        return make_adapter(self.version)


def make_step_report(version: int, lags: Sequence[int] = (0,)) -> StepReport:
    import dataclasses

    values: dict[str, Any] = {f.name: 0.0 for f in dataclasses.fields(StepReport)}
    values |= {
        "skipped": "",
        "policy_version": version,
        "lag_max": max(lags),
        "lag_mean": float(np.mean(lags)),
        "reward_parts": {},
    }
    return StepReport(**values)


def engine_error(lease: Lease) -> Exception | None:
    return EngineError("the engine stumbled")
