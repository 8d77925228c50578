"""Admission, the first stage: problems become leases while slots are free.

Consumes free slots; produces leases in the work queue; waits for nothing: `admit` is called after every change that may
have freed a slot. A slot is taken here and freed when the group's batch has been published, or the group was dropped or
failed. Slots = (max_policy_lag + 1) x groups per batch, so one number bounds queues, bytes and staleness.
"""

import math
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.quarantine import SKIPPED, Quarantine
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_state import RunState
from cluster.flow.work_queue import WorkQueue
from cluster.record.ledger import Ledger, LedgerCounts
from contracts.errors import RunStopped
from contracts.ports import Task
from contracts.problem import Lease, Problem, Purpose, Sampling


def may_admit(counts: LedgerCounts, slots: int, num_groups: int, buffer_full: bool) -> bool:
    """A slot is free, the buffer has room, and the run still needs the group. Pure.

    num_groups: groups that the whole run trains on; what is under way counts as if it will be trained, and what is
    dropped or failed is made up for.
    """
    under_way = counts.in_flight + counts.buffered
    return not buffer_full and under_way < slots and counts.trained + under_way < num_groups


def training_lease(config: RunConfig, lease_id: int, problem: Problem) -> Lease:
    """The lease of a problem's first attempt; its policy version is set when a worker takes it."""
    actors = config.actors
    return Lease(
        lease_id=lease_id,
        problem=problem,
        num_rollouts=actors.rollouts_per_group,
        sampling=Sampling(actors.temperature, actors.max_new_tokens),
        purpose=Purpose.TRAIN,
        policy_version=0,
        run_seed=config.run.seed,
        attempt=0,
        deadline_s=actors.lease_deadline_s,
    )


@dataclass(eq=False)
class Admission:
    """Issues leases in the order of their ids; the problem of a lease is a function of its id."""

    config: RunConfig
    task: Task
    ledger: Ledger
    queue: WorkQueue
    buffer: RolloutBuffer
    quarantine: Quarantine
    state: RunState

    def admit(self) -> None:
        """Fills every free slot. Raises RunStopped where each problem of the task is in quarantine."""
        target = self.config.learner.num_updates * self.config.cluster.groups_per_batch
        while not self.state.stopping and may_admit(self.ledger.counts(), self.config.slots, target, self.buffer.full):
            problem = self.task.train_problem(self.ledger.next_lease_id)
            lease_id = self.ledger.issue(problem.problem_id)
            if problem.problem_id in self.quarantine:
                self.ledger.failed(lease_id, SKIPPED)
                self._refuse_an_empty_task()
            else:
                self.queue.add(training_lease(self.config, lease_id, problem))
        self.state.changed.notify()

    def issue_again(self, lease_id: int) -> None:
        """Puts a lease that an earlier process had issued back into the queue."""
        self.queue.add(training_lease(self.config, lease_id, self.task.train_problem(lease_id)))

    def _refuse_an_empty_task(self) -> None:
        if len(self.quarantine) >= (self.task.num_train or math.inf):
            raise RunStopped(
                "every problem of the task is in quarantine: `memr check-task` shows what the verifier says"
            )
