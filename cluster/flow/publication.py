"""Publication, the stage behind an update: the new adapter reaches the registry, from which workers fetch it.

Consumes adapters; produces versions that workers adopt by themselves: none is interrupted, nothing is drained; waits for
the disk alone.
"""

import asyncio
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.evaluation_schedule import EvaluationSchedule
from cluster.flow.evaluator import Evaluator
from cluster.flow.run_state import RunState
from cluster.flow.work_queue import WorkQueue
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.events.training import Published
from cluster.record.recorder import Recorder
from contracts.adapter import Adapter


@dataclass(eq=False)
class Publication:
    """Keeps the versions that work under way or a checkpoint needs; the registry prunes the rest."""

    config: RunConfig
    registry: AdapterRegistry
    recorder: Recorder
    queue: WorkQueue
    evaluator: Evaluator
    schedule: EvaluationSchedule
    state: RunState

    async def publish(self, adapter: Adapter) -> None:
        """Writes the adapter and prunes older ones."""
        self.recorder.event(Published(adapter.manifest.policy_version, adapter.manifest.num_bytes))
        await asyncio.to_thread(self.registry.publish, adapter)
        needed = {*self.queue.versions_needed(), *self.queue.versions_under_way(), *self.evaluator.versions}
        if not self.state.restored:  # evaluations that an earlier life left begin when the run stands where it stood
            needed |= self.schedule.left_by_an_earlier_life(adapter.manifest.policy_version)
        self.registry.prune({*needed, self._checkpointed_version()})
        self.state.changed.notify()

    def _checkpointed_version(self) -> int:
        every = self.config.cluster.checkpoint_every_updates
        return self.state.step - self.state.step % every if every else 0
