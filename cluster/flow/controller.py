"""The controller: the loops of the picture.

 task --problem--> _admit --lease--> WorkQueue --leases--> Dispatcher (one loop per worker of the Fleet)
                     ^                                          | RolloutGroup
       slot released |                                          v
                     |                                     MemoryLane: read, score, write (in order, one call at a time)
                     |                                          | ScoredGroup
                     |                                          v
                     +----- _learn: publish <- update <- RolloutBuffer.take (oldest first, lag bound)

A slot is taken at admission and freed when the group's batch has been published, or the group was dropped or
failed. Slots = (max_policy_lag + 1) x groups per batch, so one number bounds queues, bytes and staleness.

With max_policy_lag 0 everything happens in lease order: memory is called once per batch, sorted, so that the
same seed gives the same run. With more lag, memory takes what is there, and workers, memory and learner overlap.

Every loop waits on one signal, `_changed`, given after each change of state. What the learner or memory has begun is
finished and booked before a run ends in order (`undivided.py`), so that every end can be taken up again.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cluster.config.run_config import RunConfig
from cluster.flow.admission import may_admit, training_lease
from cluster.flow.autoscale import Waits
from cluster.flow.autoscaler import Autoscaler
from cluster.flow.change_signal import RECHECK_S, Signal, cancelled
from cluster.flow.dispatcher import Dispatcher
from cluster.flow.evaluation_schedule import EvaluationSchedule
from cluster.flow.evaluator import Evaluator
from cluster.flow.fleet import Fleet
from cluster.flow.lease_outcomes import LeaseOutcomes
from cluster.flow.quarantine import QUARANTINED, SKIPPED
from cluster.flow.rollout_buffer import RolloutBuffer
from cluster.flow.run_health import Health
from cluster.flow.scoring_stage import MemoryLane
from cluster.flow.undivided import Undivided, errors_of
from cluster.flow.work_queue import WorkQueue
from cluster.handles import Parts
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.checkpoint import Cut, save_checkpoint
from cluster.record.history import History, Past, TrainedBatch
from cluster.record.ledger import Books, Fate, Ledger, LedgerEvent
from cluster.record.metrics import StepContext, StepTiming, metrics_line
from cluster.record.recorder import Recorder
from cluster.record.requests import RunControl
from cluster.record.resume import restore_parts
from cluster.record.verified import Verified
from cluster.recovery.remake import remake
from contracts.adapter import Adapter
from contracts.errors import DataError, RunStopped
from contracts.ports import Task
from contracts.problem import Lease
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup


@dataclass(frozen=True, slots=True)
class Wait:
    """Where the learner's waiting time went, in seconds."""

    rollouts_s: float = 0.0
    memory_s: float = 0.0


SURVIVES = 0.99
"""Share of the adapter in merged weights below which what samples is not the policy that is trained."""


class Controller:
    """Drives one run from the first adapter to the last evaluation."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        parts: Parts,
        registry: AdapterRegistry,
        recorder: Recorder,
        history: History,
        past: Past | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """past: what an earlier process of this run left; the run goes on from there."""
        self._config = config
        self._history, self._past = history, past or Past()
        self._task = task
        self._parts = parts
        self._registry = registry
        self._recorder = recorder
        self._clock = clock
        self._started_s = clock()
        self._changed = Signal()
        self._ledger = Ledger(self._ledger_event)
        self._queue = WorkQueue()
        self._buffer = RolloutBuffer(
            config.cluster.groups_per_batch, config.learner.max_policy_lag, config.cluster.buffer_bytes
        )
        self.health = Health(config, recorder, self._changed.notify, lambda: self._step)
        self._lane = MemoryLane(
            parts.memory,
            deadline_s=config.memory.deadline_s,
            late_policy=config.memory.late_policy,
            deliver=self._to_buffer,
            answered=history.scored,
            clock=clock,
            waits_for=self._may_be_paid,
        )
        self._evaluator = Evaluator(
            config, task, self._submit, recorder.evaluation, recorder.incident, recorder.evaluations_done()
        )
        self._outcomes = LeaseOutcomes(
            config.cluster, self._queue, self._ledger, self._lane, self._evaluator, recorder, history, admit=self._admit
        )
        self._schedule = EvaluationSchedule(config, registry, self._evaluator, self._outcomes.left_out)
        dispatcher = Dispatcher(
            config, self._queue, registry, recorder, self._changed, self._outcomes, self._lag_left, self._kinds
        )
        self.fleet = Fleet(config, parts.workers, dispatcher.serve, recorder, self._changed, clock, parts.shortages)
        self._autoscaler = Autoscaler(config.cluster, self.fleet, recorder)
        self._control = RunControl(config.run_path, recorder, self.fleet.scale, self.stop)
        self._undivided = Undivided()
        self._verified = Verified()
        self._step = 0
        self._updating = False
        self._stopping = False
        self._evaluated = False
        self._taking_up = False
        self.taken_up = False
        """Where an earlier process stood has been reached: from here on `stop` ends the run, with a checkpoint."""

    @property
    def step(self) -> int:
        return self._step

    @property
    def episodes(self) -> int:
        """In memory, as of its last answer."""
        return self._lane.report.episodes if self._lane.report else 0

    @property
    def stopped_early(self) -> bool:
        """Whether `stop` came before the last evaluation was done and memory knew of every group."""
        return self._stopping and not (self._evaluated and not self._lane.untold)

    async def run(self) -> None:
        """Returns when the last evaluation is done and memory knows of every group, or soon after `stop`. Raises RunStopped,
        or what broke an invariant. Where it returns or raises RunStopped, nothing is under way with learner or memory any
        more: a checkpoint may follow."""
        await self.take_up()
        loops = [self.fleet.run(), self._control.run()]
        if self._parts.memory is not None:
            loops.append(self._memory_loop())
        main = asyncio.ensure_future(self._train_and_evaluate())
        every = {main, *(asyncio.ensure_future(loop) for loop in loops)}
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
            errors = await (self._undivided.finished() if in_order else self._undivided.given_up())
            self._tell_of([*errors_of(every), *errors], raised)

    def _tell_of(self, errors: Sequence[BaseException], raised: BaseException | None) -> None:
        """An incident for each error that the end of the run does not tell itself."""
        for error in {id(error): error for error in errors if error is not raised}.values():
            name = type(error).__name__
            with suppress(OSError):  # of a full disk, which must not hide what ended the run
                self._recorder.incident("error_under_way", f"while the run was ending, {name}: {error}", error=name)

    def stop(self) -> None:
        """Finish the update under way, then return from `run`; evaluations under way are made when the run is resumed."""
        self._stopping = True
        self._changed.notify()

    def _ledger_event(self, event: LedgerEvent) -> None:
        self._history.ledger_event(event)
        self._recorder.ledger_event(event)

    # -- taking up -------------------------------------------------------------------------------------------

    async def take_up(self) -> bool:
        """Where an earlier process stood, or the beginning: books, memory, policy, then what was under way. True for a
        run that begins; once is enough."""
        past = self._past
        if self._taking_up:
            return False
        self._taking_up = True
        if past.books is not None:
            self._ledger.adopt(past.books)
        for event in past.events:
            self._ledger.restore(event)
        if past.begun:
            self._take_up_books(self._ledger.books())
        self._step = past.step
        self._recorder.take_up_transcripts(past.step)
        if lost := self._registry.set_aside_after(past.step + len(past.batches)):
            self._recorder.event("adapters_set_aside", names=lost)
        adapter = await restore_parts(past, self._parts, self._recorder)
        await self._publish(adapter)
        if adapter.manifest.policy_version != self._step:
            raise DataError(
                f"the learner is at version {adapter.manifest.policy_version}, the run after update {self._step}: take "
                f"{past.checkpoint} away, and `memr resume` goes on from the checkpoint before it"
            )
        await self._remake(past)
        self.health.resume()
        for scored in past.buffered.values():
            self._buffer.put(scored)
        for group in past.untold.values():
            self._lane.add_untold(group)
        for group in past.sampled.values():
            self._lane.add(group)
        for lease_id in self._ledger.with_fate(Fate.IN_FLIGHT):
            if lease_id not in past.sampled:
                self._queue.add(training_lease(self._config, lease_id, self._task.train_problem(lease_id)))
        self.taken_up = True
        return not past.begun

    async def _remake(self, past: Past) -> None:
        """Logged updates, in their order; the lines of metrics that were lost are written again."""
        recorded = self._recorder.last_step() if past.batches else 0

        async def made(batch: TrainedBatch, report: StepReport, adapter: Adapter) -> None:
            await self._publish(adapter)
            self._step = batch.step
            if batch.step > recorded:
                self._record(batch.groups, report, StepTiming(0.0, 0.0, 0.0, 0.0, 0.0))
            else:
                self._recorder.groups(batch.step, batch.groups)  # a power cut may have left the line alone

        await remake(self._parts.learner, past, past.batches, self._recorder, made)

    def _take_up_books(self, books: Books) -> None:
        for lease_id, reason in books.reasons.items():
            if reason == QUARANTINED:
                self._outcomes.quarantine.add(books.problems_N[lease_id])
        self._recorder.ledger_anew(books.events())

    # -- learner ---------------------------------------------------------------------------------------------

    async def _train_and_evaluate(self) -> None:
        """Consumes batches; produces updates; waits for the buffer; unblocked by the memory lane."""
        num_updates = self._config.learner.num_updates
        try:
            self._schedule.resume(self._step)
            self._admit()
            if remade := self._past.batches:  # a kill came before its checkpoint, to which a roll-back would go
                await self._checkpoint_if_due(rolled_back=remade[-1].rolled_back_to is not None)
            while self._step < num_updates and not self._stopping:
                await self._learn()
                self._schedule.after_update(self._step)
            self._evaluated = await self._schedule.to_the_end(self._step, self._changed, self._is_stopping)
            while self._lane.untold and not self._is_stopping():
                await self._changed.wait()
        finally:
            await self._evaluator.give_up()

    def _is_stopping(self) -> bool:
        """Raises RunStopped for a halt, whatever is waited for: the last update or the last evaluation may bring it."""
        if not self._stopping:
            self.health.check()
        return self._stopping

    async def _learn(self) -> None:
        """One update, and what follows from it; a halt that comes of it is raised when it is booked."""
        started = self._clock()
        batch, wait = await self._next_batch()
        if not batch:
            return
        if self._step == 0:
            self.health.look_at_first(batch, self._outcomes.dropped_rollouts)
        report, timing, rolled_back = await self._undivided(self._update(batch, started, wait))
        waits = (timing.step_s, timing.wait_rollouts_s, timing.wait_memory_s)
        self._autoscaler.after_update(Waits(self._step, *waits, len(self._buffer), self._config.slots))
        await self._checkpoint_if_due(rolled_back=rolled_back)
        if report.skipped:
            self.health.check()

    async def _checkpoint_if_due(self, *, rolled_back: bool) -> None:
        every = self._config.cluster.checkpoint_every_updates
        if (every and self._step % every == 0) or rolled_back:
            await self._undivided(self.checkpoint())

    async def _update(
        self, batch: Sequence[ScoredGroup], started: float, wait: Wait
    ) -> tuple[StepReport, StepTiming, bool]:
        """From the batch to the books, undivided: the run stands at the learner's version again when this returns.
        True where the learner went back to a checkpoint's weights."""
        self._updating, taken = True, self._clock()
        report, adapter = await self._parts.learner.update(batch)
        adapter, rolled_back_to = await self.health.after_update(report, adapter, self._parts.learner)
        updated = self._clock()
        leases = [scored.group.lease_id for scored in batch]
        self._history.trained(self._step + 1, leases, adapter.manifest.weights_hash, rolled_back_to)
        await self._publish(adapter)
        self._step += 1
        self._updating = False
        self._book(batch, report)
        timing = StepTiming(
            step_s=self._clock() - started,
            update_s=updated - taken,
            publish_s=self._clock() - updated,
            wait_rollouts_s=wait.rollouts_s,
            wait_memory_s=wait.memory_s,
        )
        self._record(batch, report, timing)
        self._admit()  # at once: whichever worker proves the new version first takes what is there
        return report, timing, bool(rolled_back_to)

    def _book(self, batch: Sequence[ScoredGroup], report: StepReport) -> None:
        """The batch is trained and leaves the buffer; its slots are free."""
        for scored in batch:
            self._ledger.trained(scored.group.lease_id, report.policy_version)
        self._buffer.trained()
        self._ledger.check(in_flight=self._queue.training_leases + len(self._lane), buffered=len(self._buffer))

    def _record(self, batch: Sequence[ScoredGroup], report: StepReport, timing: StepTiming) -> None:
        context = StepContext(
            step=self._step,
            wall_s=self._clock() - self._started_s,
            tokens_generated=self._outcomes.take_tokens(),
            late_groups=self._lane.late_groups,
            buffered_bytes=self._buffer.state.nbytes,
            workers=self.fleet.serving,
            dropped_or_failed=dict(self._ledger.reasons),
            unremembered_groups=self._lane.unremembered_groups,
            merged_bfloat16=self._config.actors.merges_in_bfloat16,
            judged=self._outcomes.take_shares(),
        )
        self._recorder.metrics(metrics_line(context, report, timing, self._lane.report, self._ledger.counts()))
        self._recorder.groups(self._step, batch)
        if report.lag_max == 0 and report.mismatch_mean > self._config.learner.mismatch_warn:
            self._recorder.event("mismatch", step=self._step, mean=report.mismatch_mean, p99=report.mismatch_p99)
        if self._config.actors.merges_in_bfloat16 and report.merged_survival < SURVIVES:
            self._recorder.event(
                "update_lost", step=self._step, version=report.policy_version, survival=report.merged_survival
            )

    async def _next_batch(self) -> tuple[list[ScoredGroup], Wait]:
        """The batch and what it cost to wait for it; empty only when the run is stopping."""
        started = self._clock()
        sampled: float | None = None  # when the workers had done their part and memory alone was missing
        while not self._stopping:
            self.health.check()
            self._drop_stale()
            under_way = [*self._queue.versions_under_way(), *self._lane.versions]
            batch = self._buffer.take(self._registry.newest, under_way)
            if batch is not None:
                now = self._clock()
                memory_s = now - sampled if sampled is not None else 0.0
                return batch, Wait(now - started - memory_s, memory_s)
            if sampled is None and self._memory_alone_is_missing():
                sampled = self._clock()
            await self._changed.wait()
        return [], Wait()

    def _lag_left(self) -> int:
        """A group that is sampled now is trained after all that are ahead of it: what is left of the bound, in versions.
        After the last update none is trained: evaluations alone are sampled, with any version."""
        if self._registry.newest >= self._config.learner.num_updates:
            return self._registry.newest
        ahead = len(self._queue.versions_under_way()) + len(self._lane) + len(self._buffer)
        return self._config.learner.max_policy_lag - ahead // self._config.cluster.groups_per_batch

    def _kinds(self) -> list[str]:
        """Of the workers that the run shall have."""
        return [kind for kind, workers in self.fleet.targets.items() if workers]

    def _drop_stale(self) -> None:
        """What grew too old while it waited: counted, and its slots go to other problems."""
        stale = self._buffer.drop_stale(self._registry.newest)
        for scored in stale:
            self._ledger.dropped(scored.group.lease_id, "too stale to train")
        if stale:
            self._recorder.groups(self._step, stale, fate="dropped")
            self._admit()

    def _memory_alone_is_missing(self) -> bool:
        return len(self._lane) > 0 and len(self._buffer) + len(self._lane) >= self._config.cluster.groups_per_batch

    async def _publish(self, adapter: Adapter) -> None:
        """Workers follow the newest version by themselves: nobody is interrupted, nothing is drained."""
        self._recorder.event("published", version=adapter.manifest.policy_version, bytes=adapter.manifest.num_bytes)
        await asyncio.to_thread(self._registry.publish, adapter)
        under_way = {*self._queue.versions_needed(), *self._queue.versions_under_way(), *self._evaluator.versions}
        if not self.taken_up:  # evaluations that an earlier life left begin when the run stands where it stood
            under_way |= self._schedule.left_by_an_earlier_life(adapter.manifest.policy_version)
        self._registry.prune({*under_way, self._checkpointed_version()})
        self._changed.notify()

    def _checkpointed_version(self) -> int:
        every = self._config.cluster.checkpoint_every_updates
        return self._step - self._step % every if every else 0

    # -- admission and rollouts ------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Consumes free slots; produces leases. Called after every change that may have freed a slot."""
        target = self._config.learner.num_updates * self._config.cluster.groups_per_batch
        while not self._stopping and may_admit(self._ledger.counts(), self._config.slots, target, self._buffer.full):
            problem = self._task.train_problem(self._ledger.next_lease_id)
            lease_id = self._ledger.issue(problem.problem_id)
            if problem.problem_id in self._outcomes.quarantine:
                self._ledger.failed(lease_id, SKIPPED)
                self._refuse_an_empty_task()
            else:
                self._queue.add(training_lease(self._config, lease_id, problem))
        self._changed.notify()

    def _refuse_an_empty_task(self) -> None:
        if len(self._outcomes.quarantine) >= (self._task.num_train or math.inf):
            raise RunStopped(
                "every problem of the task is in quarantine: `memr check-task` shows what the verifier says"
            )

    def _submit(self, lease: Lease) -> None:
        self._queue.add(lease)
        self._changed.notify()

    # -- memory ----------------------------------------------------------------------------------------------

    async def _memory_loop(self) -> None:
        """Consumes sampled groups; produces scored ones; waits for groups; unblocked by workers."""
        in_order = self._config.learner.max_policy_lag == 0
        while True:
            if self._lane.has_new and not (in_order and self._queue.training_leases):
                await self._undivided(self._lane.score_new(in_lease_order=in_order))
                self._changed.notify()
            else:
                await self._changed.wait()

    def _to_buffer(self, scored: ScoredGroup) -> None:
        self._ledger.buffered(scored.group.lease_id)
        self._buffer.put(scored)
        if scored.memory_version < 0 and self._parts.memory is not None:
            self._history.went_on(scored.group.lease_id, late=scored.late)
        if scored.late:
            self._recorder.event("memory_late", lease=scored.group.lease_id)
        self._changed.notify()

    def _may_be_paid(self, policy_version: int) -> bool:
        """With max_policy_lag 0 every group waits for memory, paid or not: memory's order, and so its bytes, are the run's."""
        return self._config.learner.max_policy_lag == 0 or self._config.memory.bonus_rule.is_on(policy_version)

    # -- checkpoint and heartbeat ----------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Adapter, optimiser and memory; ledger and rollouts are on disk already. Raises DataError for one that could not
        be read back: the one before stays the newest."""
        self._ledger.audit()
        cut = Cut(
            self._step,
            self._history.position,
            self._ledger.books(),
            tuple(self._buffer.groups),
            tuple(self._lane.groups),
            tuple(self._lane.untold),
        )
        run_path, keep = self._config.run_path, self._config.cluster.checkpoints_kept
        folder = await save_checkpoint(run_path, cut, self._parts, keep, sync=self._sync, verified=self._verified)
        self._recorder.event("checkpoint", step=self._step, folder=str(folder))

    async def _sync(self) -> None:
        """Before a checkpoint has its name: the log that it points into, and what no replay would write again, beside the
        loops, as transcripts are many."""
        self._history.sync()
        await asyncio.to_thread(self._recorder.sync)

    def status(self) -> dict[str, object]:
        return {
            "step": self._step,
            "num_updates": self._config.learner.num_updates,
            "policy_version": self._step,
            "phase": self._phase(),
            "workers": self.fleet.serving,
            "workers_wanted": self.fleet.target,
            "workers_joining": self.fleet.joining,
            "fleet": {
                seat.worker_id: {"state": seat.state.value, "version": seat.version, "rollouts_in_hand": seat.rows}
                for seat in self.fleet.seats
            },
            "at_workers": self._queue.at_workers,
            "with_memory": len(self._lane),
            "buffered": len(self._buffer),
            "eval_leases": self._evaluator.open_leases,
            "progress": self._progress(),
        }

    def _progress(self) -> list[int]:
        """Changes whenever the run gets on: what the supervisor watches."""
        memory = self._lane.report.memory_version if self._lane.report else 0
        return [self._step, self._outcomes.returned, memory, sum(seat.version for seat in self.fleet.seats)]

    def _phase(self) -> str:
        if self._stopping:
            return "stopping"
        if self._updating:
            return "updating"
        if self._step >= self._config.learner.num_updates:
            if self._evaluator.open_leases:
                return "evaluating"
            return "remembering" if self._lane.untold else "done"
        return "waiting for memory" if self._memory_alone_is_missing() else "waiting for rollouts"
