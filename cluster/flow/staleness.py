"""How old a group may be when it is sampled: what is left of the lag bound. Reads queues; changes nothing."""

from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.work_queue import WorkQueue
from cluster.record.adapter_registry import AdapterRegistry


@dataclass(eq=False)
class Staleness:
    """Versions are policy versions: updates since the base model."""

    config: RunConfig
    registry: AdapterRegistry
    queue: WorkQueue
    scoring: ScoringQueue
    buffer: RolloutBuffer

    def lag_left(self) -> int:
        """A group that is sampled now is trained after all that are ahead of it: what is left of the bound, in versions.
        After the last update none is trained: evaluations alone are sampled, with any version."""
        if self.registry.newest >= self.config.learner.num_updates:
            return self.registry.newest
        ahead = len(self.queue.versions_under_way()) + len(self.scoring) + len(self.buffer)
        return self.config.learner.max_policy_lag - ahead // self.config.cluster.groups_per_batch

    def versions_under_way(self) -> list[int]:
        """Of the groups at workers and with memory: their versions bound what may be published."""
        return [*self.queue.versions_under_way(), *self.scoring.versions]

    def memory_alone_is_missing(self) -> bool:
        """Workers have sampled a whole batch; some of it waits for memory."""
        waiting = len(self.scoring)
        return waiting > 0 and len(self.buffer) + waiting >= self.config.cluster.groups_per_batch
