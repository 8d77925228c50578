"""From the first checkpoint to the last: what a controller is asked for in one life of a run.

restore -> (a run that begins: first checkpoint -> does it fit this machine?) -> run -> last checkpoint
"""

from collections.abc import Callable

from cluster.flow.controller import Controller
from cluster.record.events.failures import PartLost, Stopped
from cluster.record.recorder import Recorder
from contracts.errors import ActorLostError, MemrError, RunStopped


async def drive(
    controller: Controller,
    recorder: Recorder,
    check_resources: Callable[[], None],
    on_restored: Callable[[], None] = lambda: None,
) -> None:
    """To the last update or to the first thing that no part can cure, and a checkpoint wherever the parts are well.
    on_restored: called before anything new is made: whatever an attempt writes down that must not outlive its failure."""
    try:
        begins = await controller.restore()
        on_restored()
        if begins:
            await controller.checkpoint()  # the first: what it weighs is measured, and there is one to go back to
            check_resources()
        await controller.run()
    except ActorLostError as error:
        recorder.event(PartLost(str(error)))
        raise  # the supervisor takes the run up again from what is on disk
    except RunStopped as error:  # learner and memory are well: keep what they hold
        recorder.event(Stopped(str(error)))
        await _checkpoint_after(error, controller)
        raise
    except MemrError as error:
        recorder.event(Stopped(str(error)))
        raise
    await controller.checkpoint()


async def _checkpoint_after(stopped: RunStopped, controller: Controller) -> None:
    """Raises RunStopped, which tells both, where none can be written: the run then goes on from the one before."""
    try:
        await controller.checkpoint()
    except (MemrError, OSError) as error:
        raise RunStopped(
            f"{stopped}. No checkpoint could be written after that ({error}): `memr resume` goes on from the one before "
            "and makes the updates since then again"
        ) from error
