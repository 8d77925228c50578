"""An environment that fails costs its own rollout, which says why; and every environment hears its rollout's end."""

from dataclasses import dataclass, field

from contracts.ports import Environment, EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from contracts.verdict import Invalid, Scored
from tests.unit.actors.test_rollout_worker import ListedTask, RecordingEngine, always, lease, make_worker


@dataclass
class World:
    number: int
    closed: list[int]

    def step(self, policy_text: str) -> EnvironmentReply:
        if self.number == 0:
            raise KeyError("no such room")
        if self.number == 1:
            return EnvironmentReply(TurnOutcome.FAULT, "mine.py:3 (ValueError): x")
        return EnvironmentReply(TurnOutcome.DONE)

    def close(self) -> None:
        self.closed.append(self.number)
        raise RuntimeError("a close that fails harms nobody")


@dataclass
class AsyncWorld(World):
    async def step(self, policy_text: str) -> EnvironmentReply:  # type: ignore[override]
        return World.step(self, policy_text)


@dataclass
class Worlds(ListedTask):
    kind: type[World] = World
    opened: int = 0
    closed: list[int] = field(default_factory=list)

    def environment(self, problem: Problem) -> Environment:
        self.opened += 1
        return self.kind(self.opened - 1, self.closed)


def test_a_fault_costs_one_rollout_and_is_its_reason() -> None:
    for kind in (World, AsyncWorld):
        task = Worlds(kind=kind)
        worker, verifier, _ = make_worker(RecordingEngine(always("2")), task)
        [group] = worker.sample([lease(0, rollouts=3)])
        verdicts = [rollout.verdict for rollout in group.rollouts]
        assert verdicts[:2] == [Invalid("KeyError: 'no such room'"), Invalid("mine.py:3 (ValueError): x")]
        assert isinstance(verdicts[2], Scored)
        assert [rollout.outcomes for rollout in group.rollouts] == [(TurnOutcome.FAULT,)] * 2 + [(TurnOutcome.DONE,)]
        assert len(verifier.calls[0]) == 1, "a rollout that its environment spoilt is not judged"
        assert task.closed == [0, 1, 2]
