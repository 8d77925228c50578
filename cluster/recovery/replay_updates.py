"""Repeats logged updates: from a learner as its checkpoint left it to where the log says that it stood.

 batches of the log --update--> --roll back, where one followed--> the same version, compared with the logged hash

A roll-back goes to the weights of a checkpoint. One later than the start is not read for that, it may be spoilt by now:
its weights are those of an update that is made again on the way, and are put aside when that one is reached.
"""

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from cluster.handles import LearnerHandle
from cluster.record.events.resuming import ReplayedDifferently
from cluster.record.history import RecoveredState, TrainedBatch
from cluster.record.recorder import Recorder
from contracts.adapter import Adapter
from contracts.reports import StepReport

Made = Callable[[TrainedBatch, StepReport, Adapter], Awaitable[None]]


async def _nothing(_batch: TrainedBatch, _report: StepReport, _adapter: Adapter) -> None:
    pass


async def replay_updates(
    learner: LearnerHandle,
    past: RecoveredState,
    batches: Sequence[TrainedBatch],
    recorder: Recorder,
    made: Made = _nothing,
) -> None:
    """From `past.step`, in order; made: called after each. An event says if one gave other weights than the first time."""
    sources = {batch.rolled_back_to for batch in batches if batch.rolled_back_to not in (None, past.checkpoint)}
    with ExitStack() as until_made:
        aside = _Aside(learner, {_step(source): source for source in sources if source is not None}, until_made)
        await aside.keep(past.step)
        for batch in batches:
            report, adapter = await learner.update(batch.groups)
            if batch.rolled_back_to is not None and (source := aside.where(batch.rolled_back_to)).exists():
                adapter = await learner.roll_back(source)
            if adapter.manifest.weights_hash != batch.weights_hash:
                recorder.event(ReplayedDifferently(batch.step, adapter.manifest.policy_version))
            await made(batch, report, adapter)
            await aside.keep(batch.step)


class _Aside:
    """The learner's state at steps that a later update goes back to. wanted: checkpoints by step."""

    def __init__(self, learner: LearnerHandle, wanted: dict[int, Path], until_made: ExitStack) -> None:
        self._learner, self._wanted, self._until_made = learner, wanted, until_made
        self._kept: dict[Path, Path] = {}

    async def keep(self, step: int) -> None:
        """Beside the checkpoints, hidden; a name that the next removal there sweeps away, should this process die."""
        if (checkpoint := self._wanted.get(step)) is None:
            return
        checkpoint.parent.mkdir(exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".remade-", suffix=".removed", dir=checkpoint.parent)
        self._kept[checkpoint] = Path(self._until_made.enter_context(folder)) / "learner"
        await self._learner.save(self._kept[checkpoint])

    def where(self, checkpoint: Path) -> Path:
        return self._kept.get(checkpoint, checkpoint / "learner")


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
