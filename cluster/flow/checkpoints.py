"""Decides when a checkpoint is written, between two updates, and has its parts saved."""

import asyncio
from dataclasses import dataclass, field

from cluster.config.run_config import RunConfig
from cluster.flow.lease_outcomes import LeaseOutcomes
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_state import RunState
from cluster.flow.scoring_queue import ScoringQueue
from cluster.flow.uninterruptible import Undivided
from cluster.handles import Services
from cluster.record.checkpoint import CheckpointState, save_checkpoint
from cluster.record.events.training import CheckpointWritten
from cluster.record.history import History
from cluster.record.ledger import Ledger
from cluster.record.recorder import Recorder
from cluster.record.verified import Verified


@dataclass(eq=False)
class Checkpoints:
    """Ledger and rollouts are on disk already, in the log."""

    config: RunConfig
    services: Services
    ledger: Ledger
    outcomes: LeaseOutcomes
    buffer: RolloutBuffer
    scoring: ScoringQueue
    history: History
    recorder: Recorder
    undivided: Undivided
    state: RunState
    verified: Verified = field(default_factory=Verified)

    async def write_if_due(self, *, rolled_back: bool) -> None:
        """Every cluster.checkpoint_every_updates, and after a roll-back."""
        every = self.config.cluster.checkpoint_every_updates
        if (every and self.state.step % every == 0) or rolled_back:
            await self.undivided(self.write())

    async def write(self) -> None:
        """Raises DataError for one that could not be read back: the one before stays the newest."""
        self.ledger.audit()
        cut = CheckpointState(
            self.state.step,
            self.history.position,
            self.ledger.snapshot(),
            tuple(self.buffer.groups),
            tuple(self.scoring.groups),
            tuple(self.scoring.unanswered),
            self.outcomes.counts.stored(),
        )
        path, keep = self.config.run_path, self.config.cluster.checkpoints_kept
        folder = await save_checkpoint(path, cut, self.services, keep, sync=self._sync, verified=self.verified)
        self.recorder.event(CheckpointWritten(self.state.step, str(folder)))

    async def _sync(self) -> None:
        """Before a checkpoint has its name: the log that it points into, and what no replay would write again, beside the
        loops, as transcripts are many."""
        self.history.sync()
        await asyncio.to_thread(self.recorder.sync)
