"""Admission: may another problem be issued, and as what lease? Pure."""

from cluster.config.run_config import RunConfig
from cluster.record.ledger import LedgerCounts
from contracts.problem import Lease, Problem, Purpose, Sampling


def may_admit(counts: LedgerCounts, slots: int, num_groups: int, buffer_full: bool) -> bool:
    """A slot is free, the buffer has room, and the run still needs the group.

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
