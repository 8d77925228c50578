"""Restarts the learner and memory actors when they die or stop answering, replays the log up to the failed call, and repeats
that call. The caller sees a delay and nothing else.

    call -- ActorLostError | no answer within the limit --> decide --> end, start, restore newest checkpoint,
      ^                                                      |         tell it again what the log says came after
      +------------------------------------------------------+-- budget spent: ActorLostError, the run is resumed

State lives in the run directory alone, so a revived part is what the lost one was: rollouts are never sampled again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cluster.handles import LearnerHandle, MemoryHandle
from cluster.record.events.event import Event
from cluster.record.events.failures import LearnerLost, LearnerRevived, MemoryLost, MemoryRevived
from cluster.record.history import RecoveredState, TrainedBatch
from cluster.record.recorder import Recorder
from cluster.record.resume import calls_after
from cluster.recovery.failure_policy import Budget, Component, Failure, RestartAction, decide
from cluster.recovery.replay_updates import replay_updates
from contracts.adapter import Adapter
from contracts.errors import ActorLostError, LoadError
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import RolloutGroup, ScoredGroup

Handle = TypeVar("Handle")
Answer = TypeVar("Answer")

LOST: Mapping[Component, Callable[[str, str], Event]] = {Component.LEARNER: LearnerLost, Component.MEMORY: MemoryLost}
REVIVED: Mapping[Component, Callable[[float], Event]] = {
    Component.LEARNER: LearnerRevived,
    Component.MEMORY: MemoryRevived,
}


@dataclass(frozen=True, slots=True)
class RestartPolicy(Generic[Handle]):
    """What it takes to bring a part back. end: of the handle's process, whatever state it is in, with words of what was
    found. past: of the run as it stands on disk now. limit_s: longest that a call may take."""

    part: Component
    start: Callable[[], Awaitable[Handle]]
    end: Callable[[], str]
    past: Callable[[], RecoveredState]
    budget: Budget
    limit_s: float
    limit_name: str
    recorder: Recorder
    clock: Callable[[], float] = time.monotonic


class Restartable(Generic[Handle]):
    """One part under care. catch_up: makes a fresh handle what the lost one was."""

    def __init__(
        self,
        handle: Handle,
        policy: RestartPolicy[Handle],
        catch_up: Callable[[Handle, RecoveredState], Awaitable[None]],
    ) -> None:
        self._handle, self._policy, self._catch_up = handle, policy, catch_up
        self._failures: list[Failure] = []
        self._one_at_a_time = asyncio.Lock()

    async def call(self, ask: Callable[[Handle], Awaitable[Answer]]) -> Answer:
        """Raises what the part itself raised, and ActorLostError when it cannot be brought back."""
        while True:
            handle = self._handle
            try:
                async with asyncio.timeout(self._policy.limit_s):
                    return await ask(handle)
            except (ActorLostError, TimeoutError) as error:
                async with self._one_at_a_time:
                    if self._handle is handle:
                        await self._revive(error)

    async def _revive(self, error: Exception) -> None:
        care, loaded = self._policy, True
        while True:
            began = care.clock()
            found = care.end()
            self._failures.append(Failure(care.part, began))
            verdict = decide(self._failures, care.budget, began)
            restarts = verdict.decision is RestartAction.RESTART_COMPONENT
            headline = self._headline(error, found) if loaded else f"the {care.part} did not load again: {error}"
            care.recorder.event(LOST[care.part](headline, verdict.decision.value))
            if not restarts:
                raise ActorLostError(f"{headline}; that was {verdict.spent} times within {care.budget.window_s:.0f} s")
            try:
                fresh = await care.start()
            except (ActorLostError, LoadError) as refused:  # it did load once: what is in the way may pass
                error, loaded = refused, False
                continue
            try:
                await self._catch_up(fresh, await asyncio.to_thread(care.past))
            except ActorLostError as again:
                error, loaded = again, True
                continue
            self._handle = fresh
            care.recorder.event(REVIVED[care.part](round(care.clock() - began, 3)))
            return

    def _headline(self, error: Exception, found: str) -> str:
        care = self._policy
        if isinstance(error, TimeoutError):
            return f"the {care.part} gave no answer within cluster.{care.limit_name} = {care.limit_s:g} s: {found}"
        return f"the {care.part}'s process died: {found}"


class RestartableLearner:
    """cluster.handles.LearnerHandle. Keeps the batch of its last answer: between an update and its line in the log, where a
    roll-back may follow it, nobody else could tell a reborn learner of it."""

    def __init__(self, handle: LearnerHandle, policy: RestartPolicy[LearnerHandle]) -> None:
        self._restartable = Restartable(handle, policy, self._catch_up)
        self._recorder = policy.recorder
        self._version = 0
        self._last: TrainedBatch | None = None

    async def first_adapter(self) -> Adapter:
        adapter = await self._restartable.call(lambda learner: learner.first_adapter())
        self._version = adapter.manifest.policy_version
        return adapter

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report, adapter = await self._restartable.call(lambda learner: learner.update(groups))
        self._version = report.policy_version
        self._last = TrainedBatch(self._version, tuple(groups), adapter.manifest.weights_hash)
        return report, adapter

    async def save(self, directory: Path) -> None:
        await self._restartable.call(lambda learner: learner.save(directory))

    async def restore(self, directory: Path) -> None:
        await self._restartable.call(lambda learner: learner.restore(directory))

    async def roll_back(self, directory: Path) -> Adapter:
        return await self._restartable.call(lambda learner: learner.roll_back(directory))

    async def _catch_up(self, learner: LearnerHandle, past: RecoveredState) -> None:
        """The updates that the lost learner had made since the checkpoint, and no more: those of the log, and the last one
        where it is not booked yet."""
        if past.checkpoint is not None:
            await learner.restore(past.checkpoint / "learner")
        made = [batch for batch in past.batches if batch.step <= self._version]
        if past.step + len(made) < self._version:
            assert self._last is not None, "an update that no log knows was answered by this learner"
            made.append(self._last)
        await replay_updates(learner, past, made, self._recorder)


class RestartableMemory:
    """cluster.handles.MemoryHandle."""

    def __init__(self, handle: MemoryHandle, policy: RestartPolicy[MemoryHandle]) -> None:
        self._restartable = Restartable(handle, policy, _catch_up_memory)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        return await self._restartable.call(lambda memory: memory.score(groups))

    async def save(self, directory: Path) -> str:
        return await self._restartable.call(lambda memory: memory.save(directory))

    async def restore(self, snapshot: Path) -> None:
        await self._restartable.call(lambda memory: memory.restore(snapshot))


async def _catch_up_memory(memory: MemoryHandle, past: RecoveredState) -> None:
    if past.memory_snapshot is not None:
        await memory.restore(past.memory_snapshot)
    for call in calls_after(past):
        await memory.score([scored.group for scored in call])
