"""Lives of a run that end in every way there is, in process: services that go on with a call whoever gives up waiting, as
processes do, and ways to stop at a moment of choice.

    life(...) until `Moment` -> `STOPS[...]` -> drive ends it -> life(...) again -> to the last update
"""

import asyncio
import contextlib
import hashlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from cluster.config.run_config import RunConfig
from cluster.flow.drive import drive
from cluster.record.checkpoint import read_checkpoint
from cluster.record.history import Kind
from cluster.record.ledger import STATUSES, LeaseStatus, LedgerSnapshot
from cluster.record.run_log import read_log
from cluster.watch.alarms.alarm import Action, Alarm
from contracts.adapter import Adapter
from contracts.errors import ActorLostError, RunStopped
from contracts.ports import PolicyLearner
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import RolloutGroup, ScoredGroup
from learner.config import LearnerSettings, ScriptedLearnerSettings
from learner.scripted_learner import ScriptedLearner
from tests.fakes import FakeLearner, FakeMemory, FakeWorker, engine_error, make_adapter
from tests.harness import Run, make_config

Answer = TypeVar("Answer")
UPDATES = 6
GROUPS = 4


class OneCallAtATime:
    """As an actor's process: calls wait in line, and one that nobody waits for any more is made anyway."""

    def __init__(self) -> None:
        self._line = asyncio.Lock()

    async def __call__(self, call: Awaitable[Answer]) -> Answer:
        async def in_line() -> Answer:
            async with self._line:
                return await call

        return await asyncio.shield(asyncio.ensure_future(in_line()))


class ActorMemory(FakeMemory):
    """Counts every group that it is told of."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s=delay_s)
        self._line = OneCallAtATime()

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return await self._line(super().score(groups))

    async def save(self, directory: Path) -> str:
        return await self._line(super().save(directory))


class ChainedLearner(FakeLearner):
    """Its weights are a hash of every batch so far, in order: two learners agree only if they learned the same."""

    def __init__(self, lag: int, delay_s: float = 0.0, skips: Sequence[int] = ()) -> None:
        super().__init__(lag, delay_s=delay_s)
        self._line = OneCallAtATime()
        self._weights = "untrained"
        self._skips = set(skips)

    async def first_adapter(self) -> Adapter:
        return self._adapter()

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        return await self._line(self._update(groups))

    async def _update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report, _ = await super().update(groups)
        if self.version in self._skips:
            return replace(report, skipped="a tensor is not finite"), self._adapter()
        seen = [(s.group.lease_id, [r.tokens_T.tolist() for r in s.group.rollouts], s.bonus_G.tolist()) for s in groups]
        self._weights = hashlib.sha256(f"{self._weights}{seen}".encode()).hexdigest()
        return report, self._adapter()

    async def save(self, directory: Path) -> None:
        await self._line(self._save(directory))

    async def _save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        state = {"policy_version": self.version, "weights": self._weights}
        (directory / "learner.json").write_text(json.dumps(state))

    async def restore(self, directory: Path) -> None:
        state = json.loads((directory / "learner.json").read_text())
        self.version, self._weights = state["policy_version"], state["weights"]

    async def roll_back(self, directory: Path) -> Adapter:
        return await self._line(self._roll_back(directory))

    async def _roll_back(self, directory: Path) -> Adapter:
        self._weights = json.loads((directory / "learner.json").read_text())["weights"]
        self.events.append(("roll_back", directory.parent.name))
        return self._adapter()

    def _adapter(self) -> Adapter:
        return make_adapter(self.version, self._weights.encode())


class ThreadLearner:
    """A learner of ours behind cluster.handles.LearnerHandle: one thread owns it, as in its process."""

    def __init__(self, make: Callable[[], PolicyLearner]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._learner = make()
        self.events: list[tuple[Any, ...]] = []

    @property
    def version(self) -> int:
        return self._learner.policy_version

    async def first_adapter(self) -> Adapter:
        return await self._call(self._learner.publish)

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        def update() -> tuple[StepReport, Adapter]:
            return self._learner.step(groups), self._learner.publish()

        report, adapter = await self._call(update)
        self.events.append(("update", report.policy_version, tuple(s.group.lease_id for s in groups)))
        return report, adapter

    async def save(self, directory: Path) -> None:
        await self._call(lambda: self._learner.save(directory))

    async def restore(self, directory: Path) -> None:
        await self._call(lambda: self._learner.restore(directory))

    async def roll_back(self, directory: Path) -> Adapter:
        def roll_back() -> Adapter:
            self._learner.roll_back(directory)
            return self._learner.publish()

        return await self._call(roll_back)

    async def _call(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def scripted_learner(lag: int) -> ThreadLearner:
    return ThreadLearner(
        lambda: ScriptedLearner(LearnerSettings(max_policy_lag=lag, scripted=ScriptedLearnerSettings(update_s=0.003)))
    )


def tiny_learner(lag: int) -> ThreadLearner:
    """The real one: a Llama of two layers, LoRA, AdamW, bfloat16 as it is by default."""
    import torch

    from learner.learner import Learner
    from learner.policy import LoraPolicy
    from tests.unit.learner.builders import MAX_NEW_TOKENS, settings, tiny_llama

    given = settings(max_policy_lag=lag, num_updates=UPDATES, dtype="bfloat16")

    def build() -> Learner:
        policy = LoraPolicy.around(tiny_llama(dtype=torch.bfloat16), "tiny", given, 0)
        return Learner(policy, given, "template", (), MAX_NEW_TOKENS)

    return ThreadLearner(build)


# -- moments and stops ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """When `step` updates are booked and the run is in `phase` (of Controller.status, or one of PHASES), `ticks` turns of
    the loop later."""

    phase: str
    step: int = 0
    ticks: int = 0

    async def comes(self, run: Run, watch: "Watch") -> None:
        while not (run.controller.step >= self.step and watch.phase() == self.phase):
            await watch.change()
        for _ in range(self.ticks):
            await asyncio.sleep(0)


@dataclass
class Watch:
    """What the controller is doing, finer than its status: whether it checkpoints, publishes, samples."""

    run: Run
    inside: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def change(self) -> None:
        """Of the phase, or a millisecond: not every change is marked."""
        self.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), 0.001)

    def __post_init__(self) -> None:
        stages = self.run.controller.stages
        services = stages.training.services
        self._mark(services.learner, "save", "checkpointing")
        self._mark(stages.training.publication, "publish", "publishing")
        if services.memory is not None:
            self._mark(services.memory, "score", "scoring")
        self._mark(stages.evaluator, "_run", "evaluating")

    def phase(self) -> str:
        for phase in ("checkpointing", "publishing", "scoring", "evaluating"):
            if phase in self.inside:
                return phase if phase != "scoring" or not self.run.controller.stages.state.updating else "updating"
        if not self.run.controller.restored:
            return "loading"
        return "updating" if self.run.controller.stages.state.updating else "waiting"

    def _mark(self, owner: Any, name: str, phase: str) -> None:
        """From the call to its answer, whatever becomes of who asked."""
        inner = getattr(owner, name)

        async def marked(*args: Any, **kwargs: Any) -> Any:
            self.inside.append(phase)
            self.changed.set()
            try:
                await asyncio.sleep(0)
                return await inner(*args, **kwargs)
            finally:
                self.inside.remove(phase)

        setattr(owner, name, marked)


def ctrl_c(run: Run, drives: "asyncio.Task[None]") -> None:
    """As cluster.launch.stop_signals.StopSignals."""
    if run.controller.restored:
        run.controller.stop()
    else:
        drives.cancel()


def halt(run: Run, _drives: "asyncio.Task[None]") -> None:
    """As the resource keeper on a disk that is nearly full."""
    run.controller.health.halt("4 KB of disk are free")


def pause(run: Run, _drives: "asyncio.Task[None]") -> None:
    run.controller.health.apply(Alarm("entropy", Action.PAUSE, "entropy fell"))


def lose_the_fleet(run: Run, _drives: "asyncio.Task[None]") -> None:
    """Every worker at once, and no budget to replace one."""
    for worker in run.controller.fleet.workers:
        worker.lose(ActorLostError("its process died"))
    run.workers.make = lambda worker_id: FakeWorker(worker_id, start_fault=ActorLostError("it died while it loaded"))
    run.controller.stages.state.changed.notify()


def fail_everything(run: Run, _drives: "asyncio.Task[None]") -> None:
    """From now on no worker can sample: a streak of failures."""
    for worker in run.workers.ready:
        worker.fault = engine_error


def raise_in_a_loop(run: Run, _drives: "asyncio.Task[None]") -> None:
    """Any loop may find a reason to stop, whatever the others are at."""

    async def loop() -> None:
        raise RunStopped("a loop found a reason to stop")

    def over(life: "asyncio.Task[None]") -> None:
        life.exception()  # the run may have ended before: then nobody else asks
        run.controller.stages.state.changed.notify()

    life = asyncio.ensure_future(loop())
    life.add_done_callback(over)
    run.controller.fleet._lives.add(life)


def kill(_run: Run, drives: "asyncio.Task[None]") -> None:
    drives.cancel()


STOPS: dict[str, Callable[[Run, "asyncio.Task[None]"], None]] = {
    "ctrl_c": ctrl_c,
    "halt": halt,
    "pause": pause,
    "fleet": lose_the_fleet,
    "streak": fail_everything,
    "loop": raise_in_a_loop,
    "kill": kill,
}


# -- lives ---------------------------------------------------------------------------------------------------


def stop_config(path: Path, lag: int, **sections: dict[str, Any]) -> RunConfig:
    settings: dict[str, dict[str, Any]] = {
        "cluster": {"checkpoint_every_updates": 2, "worker_restarts": 0, "stop_after_failures": 3},
        "actors": {"num_workers": 2, "max_batch_rows": 4},
        "eval": {"problems": 2, "every_updates": 3},
    }
    for name, values in sections.items():
        settings[name] = settings.get(name, {}) | values
    return make_config(path, lag=lag, updates=UPDATES, **settings)


def new_run(config: RunConfig, learner: Any, noise: random.Random) -> Run:
    workers = [FakeWorker(f"w{i}", delay_s=lambda lease: noise.uniform(0, 0.002)) for i in range(2)]
    return Run(config, workers=workers, memory=ActorMemory(0.001), learner=learner)


async def live(run: Run, moment: Moment | None = None, stop: str = "") -> Exception | None:
    """One life; what ended it where it did not end by itself. Its threads are gone afterwards, as its process would be."""
    threads = ThreadPoolExecutor(4)
    asyncio.get_running_loop().set_default_executor(threads)
    drives = asyncio.ensure_future(drive(run.controller, run.recorder, lambda: None))
    stopper = asyncio.ensure_future(_stop(run, drives, moment, stop) if moment else asyncio.sleep(0))
    try:
        done, _ = await asyncio.wait([drives], timeout=30)
        assert done, f"the run hangs: {run.controller.status()}"
        if drives.cancelled():
            return None
        error = drives.exception()
        assert error is None or isinstance(error, RunStopped), error
        return error
    finally:
        drives.cancel()
        stopper.cancel()
        await asyncio.gather(drives, stopper, return_exceptions=True)
        threads.shutdown(wait=True)
        run.close()


async def _stop(run: Run, drives: "asyncio.Task[None]", moment: Moment, stop: str) -> None:
    await moment.comes(run, Watch(run))
    STOPS[stop](run, drives)


# -- what must hold ------------------------------------------------------------------------------------------


def trained_leases(path: Path) -> list[list[int]]:
    """By update, from the log."""
    frames = [json.loads(frame.payload) for frame in read_log(path / "log") if frame.kind == Kind.TRAINED]
    assert [frame["step"] for frame in frames] == list(range(1, len(frames) + 1)), "one frame per update, in order"
    return [frame["leases"] for frame in frames]


def final_weights(path: Path) -> bytes:
    [file] = path.glob(f"adapters/v{UPDATES:06d}-*/adapter_model.safetensors")
    return file.read_bytes()


def check_stopped(run: Run) -> None:
    """After a stop in order: the newest checkpoint is of just this step and is one that resume takes."""
    past, _ = read_checkpoint(run.path)
    assert past.notes == []
    assert past.step == run.controller.step
    assert past.books is not None
    check_identity(past.books, len(past.buffered))


def check_identity(books: LedgerSnapshot, buffered: int) -> None:
    counts = Counter(STATUSES[code] for code in books.fates_N)
    assert sum(counts.values()) == len(books)
    assert counts[LeaseStatus.BUFFERED] == buffered


def check_finished(run: Run, *, all_trained: bool = True) -> None:
    """Every update made once, every problem trained at most once, nothing left over."""
    assert run.controller.step == UPDATES
    check_stopped(run)
    leases = [lease for batch in trained_leases(run.path) for lease in batch]
    assert len(leases) == len(set(leases)) == UPDATES * GROUPS
    ledger = run.lines("metrics.jsonl")[-1]["ledger"]
    assert ledger["issued"] == sum(ledger[fate] for fate in ("trained", "dropped", "failed", "in_flight", "buffered"))
    assert [line["step"] for line in run.lines("metrics.jsonl")] == list(range(1, UPDATES + 1))
    if all_trained:
        assert sorted(leases) == list(range(UPDATES * GROUPS))
        assert (ledger["dropped"], ledger["failed"], ledger["in_flight"], ledger["buffered"]) == (0, 0, 0, 0)
        assert run.memory.version == UPDATES * GROUPS, "memory was told of every group once"
    assert sorted({line["step"] for line in run.lines("eval.jsonl")}) == [0, 3, 6]
