"""Stages by themselves: admission, delivery, staleness, batches, and the targets that scaling changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.config import ActorSettings
from cluster.flow.admission import Admission
from cluster.flow.batches import Batches
from cluster.flow.delivery import Delivery
from cluster.flow.quarantine import SKIPPED, Quarantine
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_health import Health
from cluster.flow.run_state import RunState
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.staleness import Staleness
from cluster.flow.work_queue import WorkQueue
from cluster.flow.worker_targets import WorkerTargets
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.history import History
from cluster.record.ledger import LeaseStatus, Ledger
from cluster.record.recorder import Recorder
from cluster.record.run_log import RunLog
from contracts.errors import RunStopped
from contracts.problem import Problem
from tests.fakes import CountingTask, FakeMemory, make_adapter, make_group, make_scored
from tests.harness import make_config


class FewProblems(CountingTask):
    """Two, over and over."""

    def train_problem(self, index: int) -> Problem:
        return super().train_problem(index % 2)

    @property
    def num_train(self) -> int | None:
        return 2


class Flow:
    """The stages around the buffer, of a run at lag 1 with 4 groups a batch: 8 slots. No memory, no worker."""

    def __init__(self, path: Path, task: CountingTask | None = None, **sections: Any) -> None:
        self.config = make_config(path, lag=1, updates=3, **sections)
        path = self.config.run_path
        path.mkdir(parents=True)
        self.state, self.queue, self.ledger = RunState(), WorkQueue(), Ledger(lambda _event: None)
        self.recorder, self.history = Recorder(path), History(RunLog(path / "log"))
        self.registry = AdapterRegistry(path / "adapters", lambda adapter: adapter, keep=9)
        self.buffer = RolloutBuffer(4, 1, 2**20)
        self.delivery = Delivery(self.buffer, self.ledger, self.history, self.recorder, self.state, memory_on=False)
        self.scoring = ScoringQueue(None, self.config.memory, self.delivery, lambda: 0.0, all_wait=False)
        self.staleness = Staleness(self.config, self.registry, self.queue, self.scoring, self.buffer)
        self.admission = Admission(
            self.config, task or CountingTask(), self.ledger, self.queue, self.buffer, Quarantine(), self.state
        )
        health = Health(self.config, self.recorder, self.state)
        self.batches = Batches(
            self.buffer, self.ledger, self.registry, self.staleness, self.admission, health, self.recorder, self.state, lambda: 0.0
        )  # fmt: skip

    def publish(self, *versions: int) -> None:
        for version in versions:
            self.registry.publish(make_adapter(version))

    def sample(self, count: int) -> None:
        """A worker at version 0 takes this many leases, in their order."""
        assert len(self.queue.dispatch(0, 2 * count, training_tokens=8)) == count

    def finish(self, leases: Sequence[int], version: int = 0) -> None:
        """These leases have come back from a worker."""
        for lease_id in leases:
            self.queue.done(lease_id)
            self.scoring.add(make_group(lease_id, version=version))

    def close(self) -> None:
        self.recorder.close()
        self.history.close()


@pytest.fixture
def flow(tmp_path: Path) -> Any:
    made = Flow(tmp_path)
    yield made
    made.close()


def test_admission_fills_the_slots_and_no_more_than_the_run_trains(flow: Flow) -> None:
    flow.admission.admit()
    assert (flow.ledger.counts().in_flight, flow.queue.training_leases) == (8, 8)
    flow.sample(8)
    flow.finish(range(8))
    flow.admission.admit()
    assert flow.ledger.counts().issued == 8, "a slot is freed by its update, not by its worker"


def test_admission_asks_for_nothing_while_a_run_is_stopping(flow: Flow) -> None:
    flow.state.stopping = True
    flow.admission.admit()
    assert flow.ledger.counts().issued == 0


def test_a_problem_in_quarantine_costs_a_lease_and_no_slot_and_where_all_are_the_run_stops(tmp_path: Path) -> None:
    flow = Flow(tmp_path, FewProblems())
    flow.admission.quarantine.add("1")
    flow.admission.admit()
    assert flow.ledger.counts().in_flight == 8
    assert set(flow.ledger.reasons) == {SKIPPED}
    flow.admission.quarantine.add("0")
    flow.ledger.dropped(flow.ledger.with_status(LeaseStatus.IN_FLIGHT)[0], "for a slot")
    with pytest.raises(RunStopped, match="every problem of the task is in quarantine"):
        flow.admission.admit()
    flow.close()


def test_what_is_delivered_is_booked_and_wakes_whoever_waits(flow: Flow) -> None:
    flow.admission.admit()
    flow.sample(1)
    before = flow.state.changed._event
    flow.finish([0])
    assert before.is_set()
    assert flow.ledger.with_status(LeaseStatus.BUFFERED) == [0]
    assert [scored.group.lease_id for scored in flow.buffer.groups] == [0]


def test_what_is_left_of_the_lag_bound_sinks_with_what_is_ahead(flow: Flow) -> None:
    flow.publish(0)
    assert flow.staleness.lag_left() == 1
    flow.admission.admit()
    flow.sample(4)
    assert flow.staleness.lag_left() == 0, "they will be trained before what is sampled now"
    flow.finish(range(4))
    assert flow.staleness.lag_left() == 0, "a whole batch will be trained before what is sampled now"
    flow.publish(1, 2, 3)
    assert flow.staleness.lag_left() == 3, "after the last update evaluations alone are sampled"


def test_groups_with_memory_are_ahead_too(flow: Flow) -> None:
    flow.publish(0)
    settings = flow.config.memory
    flow.staleness.scoring = ScoringQueue(FakeMemory(), settings, flow.delivery, lambda: 0.0, all_wait=True)
    for lease_id in range(4):
        flow.staleness.scoring.add(make_group(lease_id))
    assert flow.staleness.lag_left() == 0, "a whole batch will be trained before what is sampled now"


async def test_a_batch_is_taken_oldest_first_and_its_slots_are_free_when_it_is_booked(flow: Flow) -> None:
    flow.publish(0)
    flow.admission.admit()
    flow.sample(8)
    flow.finish([5, 3, 1, 0, 2, 4, 6, 7])
    batch, wait = await flow.batches.next()
    assert [scored.group.lease_id for scored in batch] == [0, 1, 2, 3]
    assert (wait.rollouts_s, wait.memory_s) == (0.0, 0.0)
    assert flow.ledger.counts().buffered == 8, "not before it is booked"
    flow.batches.book(batch, policy_version=1)
    assert (flow.ledger.counts().trained, flow.ledger.counts().buffered) == (4, 4)


async def test_what_grew_too_old_is_dropped_and_its_slot_goes_to_another_problem(flow: Flow) -> None:
    flow.publish(0)
    flow.admission.admit()
    flow.sample(5)
    flow.finish([0], version=0)
    flow.finish([1, 2, 3, 4], version=2)
    flow.publish(1, 2)
    batch, _ = await flow.batches.next()
    assert [scored.group.lease_id for scored in batch] == [1, 2, 3, 4]
    assert flow.ledger.reasons == {"too stale to train": 1}
    assert flow.ledger.counts().issued == 9


async def test_a_stopping_run_gets_no_batch(flow: Flow) -> None:
    flow.state.stopping = True
    assert (await flow.batches.next())[0] == []


def test_targets_follow_pools_and_losses() -> None:
    pools = [{"name": "a", "num_workers": 2}, {"name": "b", "num_workers": 1}]
    targets = WorkerTargets(ActorSettings.model_validate({"pools": pools}))
    assert (targets.first, targets.total, targets.by_pool) == ("a", 3, {"a": 2, "b": 1})
    targets.lose_one("b")
    targets.set("a", 5)
    assert (targets.total, list(targets.wanted)) == (5, ["a"])
    assert WorkerTargets(ActorSettings(num_workers=3)).total == 3


def test_scored_groups_of_a_run_without_memory_pass_at_once(flow: Flow) -> None:
    flow.admission.admit()
    flow.sample(3)
    flow.scoring.add(make_scored(make_group(2)).group)
    assert (len(flow.scoring), len(flow.buffer)) == (0, 1)
