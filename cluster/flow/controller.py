"""The controller: starts the stages of the picture, waits for the last one, and ends them.

 task --problem--> Admission --lease--> WorkQueue --leases--> Dispatcher (one loop per worker of the Fleet)
                     ^                                          | RolloutGroup, through LeaseOutcomes
       slot released |                                          v
                     |                                     ScoringQueue, ScoringStage: read, score, write (in order)
                     |                                          | ScoredGroup, through Delivery
                     |                                          v
                     +-- TrainingLoop: update -> Publication <- Batches <- RolloutBuffer (oldest first, lag bound)

With max_policy_lag 0 everything happens in lease order, so that the same seed gives the same run. With more lag, workers,
memory and learner overlap. Evaluations (EvaluationSchedule, Evaluator) run beside training, through the same work queue.

Every loop waits on one signal, `RunState.changed`, given after each change of state. stages.py wires the stages,
restore.py brings them to where an earlier process stood.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from cluster.flow.change_signal import RECHECK_S, cancelled
from cluster.flow.fleet import Fleet
from cluster.flow.restore import restore
from cluster.flow.run_health import Health
from cluster.flow.stages import RunInputs, wire
from cluster.flow.status import status_of
from cluster.flow.uninterruptible import errors_of
from cluster.record.events.failures import ErrorUnderWay
from cluster.record.history import RecoveredState
from cluster.record.requests import RunControl
from contracts.errors import RunStopped


class Controller:
    """Drives one run from the first adapter to the last evaluation."""

    def __init__(self, given: RunInputs, past: RecoveredState | None = None) -> None:
        """past: what an earlier process of this run left; the run goes on from there."""
        self._given, self._past = given, past or RecoveredState()
        self.stages = wire(given)
        self._control = RunControl(given.config.run_path, given.recorder, self)
        self._restoring = False

    @property
    def step(self) -> int:
        return self.stages.state.step

    @property
    def fleet(self) -> Fleet:
        return self.stages.fleet

    @property
    def health(self) -> Health:
        return self.stages.training.health

    @property
    def restored(self) -> bool:
        """Where an earlier process stood has been reached: from here on `stop` ends the run, with a checkpoint."""
        return self.stages.state.restored

    @property
    def episodes(self) -> int:
        """In memory, as of its last answer."""
        report = self.stages.scoring.report
        return report.episodes if report else 0

    @property
    def stopped_early(self) -> bool:
        """Whether `stop` came before the last evaluation was done and memory knew of every group."""
        state = self.stages.state
        return state.stopping and not (state.evaluated and not self.stages.scoring.unanswered)

    async def restore(self) -> bool:
        """Brings the run to where an earlier process stood, or to its beginning. True for a run that begins; once is
        enough."""
        if self._restoring:
            return False
        self._restoring = True
        await restore(self.stages, self._given, self._past)
        return not self._past.begun

    async def run(self) -> None:
        """Returns when the last evaluation is done and memory knows of every group, or soon after `stop`. Raises RunStopped,
        or what broke an invariant. Where it returns or raises RunStopped, nothing is under way with learner or memory any
        more: a checkpoint may follow."""
        await self.restore()
        main = asyncio.ensure_future(self._train_and_evaluate())
        every = {main, *(asyncio.ensure_future(loop) for loop in self._loops())}
        pending, in_order, raised = every, False, None
        try:
            while not main.done():
                done, pending = await asyncio.wait(pending, timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    finished.result()  # a loop's error is the run's
            in_order = True
        except BaseException as error:
            in_order, raised = isinstance(error, RunStopped), error
            raise
        finally:
            await cancelled(pending)
            undivided = self.stages.undivided
            errors = await (undivided.finished() if in_order else undivided.given_up())
            self._report_errors([*errors_of(every), *errors], raised)

    def stop(self) -> None:
        """Finish the update under way, then return from `run`; evaluations under way are made when the run is resumed."""
        self.stages.state.stopping = True
        self.stages.state.changed.notify()

    def scale(self, workers: int, pool: str | None) -> None:
        """As Fleet.scale."""
        self.stages.fleet.scale(workers, pool)

    async def checkpoint(self) -> None:
        """As Checkpoints.write."""
        await self.stages.training.checkpoints.write()

    def status(self) -> dict[str, object]:
        return status_of(self.stages, self._given.config)

    def _loops(self) -> list[Coroutine[Any, Any, None]]:
        loops = [self.stages.fleet.run(), self.stages.reports.run(), self._control.run()]
        return loops if self._given.services.memory is None else [*loops, self.stages.scoring_stage.run()]

    async def _train_and_evaluate(self) -> None:
        """What is due, every update, the last evaluation, and memory's answers to all that went on without them."""
        stages, training = self.stages, self.stages.training
        try:
            stages.schedule.resume(self.step)
            stages.admission.admit()
            if remade := self._past.batches:  # a kill came before its checkpoint, to which a roll-back would go
                await training.checkpoints.write_if_due(rolled_back=remade[-1].rolled_back_to is not None)
            await training.run()
            stages.state.evaluated = await stages.schedule.to_the_end(self.step, self._is_stopping)
            while stages.scoring.unanswered and not self._is_stopping():
                await stages.state.changed.wait()
        finally:
            await stages.evaluator.give_up()

    def _is_stopping(self) -> bool:
        """Raises RunStopped for a halt, whatever is waited for: the last update or the last evaluation may bring it."""
        if not self.stages.state.stopping:
            self.health.check()
        return self.stages.state.stopping

    def _report_errors(self, errors: Sequence[BaseException], raised: BaseException | None) -> None:
        """An incident for each error that the end of the run does not tell itself."""
        for error in {id(error): error for error in errors if error is not raised}.values():
            name = type(error).__name__
            with suppress(OSError):  # of a full disk, which must not hide what ended the run
                self._given.recorder.event(ErrorUnderWay(f"while the run was ending, {name}: {error}", name))
