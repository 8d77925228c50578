"""Learner and memory that die or fall silent come back as they were; the controller does not notice."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cluster.config.run_config import RunConfig
from cluster.record.recorder import Recorder
from cluster.record.resume import read_recovered_run
from cluster.recovery.failure_policy import Budget, Component
from cluster.recovery.restartable import RestartableLearner, RestartableMemory, RestartPolicy
from contracts.adapter import Adapter
from contracts.errors import ActorLostError
from contracts.reports import MemoryReport, StepReport
from contracts.rollout import RolloutGroup, ScoredGroup
from tests.fakes import FakeLearner, FakeMemory, FakeWorker
from tests.harness import Run, make_config
from tests.unit.cluster.test_resume import trained

UPDATES = 30


class MortalLearner(FakeLearner):
    """Dies in every `dies_in`-th update of its process, before or after the work is done, or says nothing."""

    def __init__(self, lag: int, noise: random.Random, death: str) -> None:
        super().__init__(lag)
        self.noise, self.death = noise, death
        self.calls_left = noise.randint(4, 9)  # more than there can be to catch up with

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        self.calls_left -= 1
        if self.calls_left <= 0 and self.death == "before":
            raise ActorLostError("died")
        answer = await super().update(groups)
        if self.calls_left <= 0 and self.death == "silent":
            await asyncio.sleep(3600)
        if self.calls_left <= 0:
            raise ActorLostError("died")
        return answer


class MortalMemory(FakeMemory):
    def __init__(self, noise: random.Random) -> None:
        super().__init__()
        self.calls_left, self.dies_after = noise.randint(9, 20), noise.random() < 0.5

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[list[ScoredGroup], MemoryReport]:
        self.calls_left -= 1
        if self.calls_left <= 0 and not self.dies_after:
            raise ActorLostError("died")
        answer = await super().score(groups)
        if self.calls_left <= 0:
            raise ActorLostError("died")
        return answer


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Of the run `r` that `make_config` places in tmp_path."""
    with closing(Recorder(tmp_path / "r")) as opened:
        yield opened


def care(
    config: RunConfig, recorder: Recorder, part: Component, make: Any, restarts: int = 50, limit_s: float = 5.0
) -> RestartPolicy[Any]:
    async def start() -> Any:
        return make()

    return RestartPolicy(
        part=part,
        start=start,
        end=lambda: "process 7 is gone",
        past=lambda: read_recovered_run(config.run_path, config),
        budget=Budget(restarts, 3600.0),
        limit_s=limit_s,
        limit_name="learner_call_s",
        recorder=recorder,
    )


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("death", ["before", "after", "silent"])
async def test_a_learner_that_dies_again_and_again_trains_every_problem_once_and_nothing_is_sampled_again(
    tmp_path: Path, recorder: Recorder, lag: int, death: str
) -> None:
    config = make_config(tmp_path, lag=lag, updates=UPDATES, cluster={"checkpoint_every_updates": 2})
    noise = random.Random(3)
    born: list[MortalLearner] = []

    def make() -> MortalLearner:
        born.append(MortalLearner(lag, noise, death))
        return born[-1]

    limit_s = 0.05 if death == "silent" else 5.0
    learner = RestartableLearner(make(), care(config, recorder, Component.LEARNER, make, limit_s=limit_s))
    run = Run(config, learner=learner)
    await run.run()
    assert len(born) > 2
    assert born[-1].version == UPDATES
    assert [step for step, _ in trained(run.path)] == list(range(1, UPDATES + 1))
    leases = Counter(lease for _, batch in trained(run.path) for lease in batch)
    assert len(leases) == 4 * UPDATES
    assert set(leases.values()) == {1}
    sampled = [lease for event in run.events if event[0] == "sample" for lease in event[3]]
    assert len(sampled) == len(set(sampled)), "no rollout is generated twice"
    events = [event["event"] for event in run.lines("events.jsonl")]
    assert "replayed_differently" not in events
    assert events.count("learner_revived") == len(born) - 1


@pytest.mark.parametrize("lag", [0, 2])
async def test_a_memory_that_dies_again_and_again_is_told_of_every_group_once(
    tmp_path: Path, recorder: Recorder, lag: int
) -> None:
    config = make_config(tmp_path, lag=lag, updates=2 * UPDATES, cluster={"checkpoint_every_updates": 2})
    noise = random.Random(5)
    born: list[MortalMemory] = []

    def make() -> MortalMemory:
        born.append(MortalMemory(noise))
        return born[-1]

    run = Run(
        config, memory=RestartableMemory(make(), care(config, recorder, Component.MEMORY, make)), workers=[FakeWorker()]
    )
    await run.run()
    assert len(born) > 2
    assert born[-1].version == 8 * UPDATES
    assert len(trained(run.path)) == 2 * UPDATES


async def test_a_part_that_cannot_be_kept_alive_ends_with_the_last_reason_and_how_often(
    tmp_path: Path, recorder: Recorder
) -> None:
    config = make_config(tmp_path)

    class Dead(MortalLearner):
        async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
            raise ActorLostError("died")

    dead = RestartableLearner(
        Dead(0, random.Random(0), ""),
        care(config, recorder, Component.LEARNER, lambda: Dead(0, random.Random(0), ""), restarts=2),
    )
    run = Run(config, learner=dead)
    with pytest.raises(ActorLostError, match="process 7 is gone; that was 3 times within 3600 s"):
        await run.run()
    incidents = sorted(path.name for path in (run.path / "incidents").iterdir())
    assert incidents == ["0001-learner_lost.json", "0002-learner_lost.json", "0003-learner_lost.json"]
