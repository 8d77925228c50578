"""What ends or turns back a run although nobody asked: alarms, a first batch without signal, updates with bad numbers.

first batch --preflight--> alarm -+-> apply: warn, halt, roll back after the next update
metrics --AlarmWatcher--> alarm --+
report.skipped, three in a row ---------> roll back to the newest whole checkpoint; twice in vain: halt

A halt is raised by `check`, between two updates: the update that it comes of is booked first. What a life of the run left
undone when it ended (a pause that was not raised yet, a roll-back that was not made, a count that stood at two) is there
in the next one: `resume` reads it from the run's own lines.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import takewhile

from cluster.config.run_config import RunConfig
from cluster.flow.run_state import RunState
from cluster.handles import LearnerHandle
from cluster.record.checkpoint import newest_verified
from cluster.record.events.event import Event
from cluster.record.events.failures import Stopped
from cluster.record.events.training import AlarmRaised, FirstBatchTooSmall, OutOfMemory, RolledBack, UpdateSkipped
from cluster.record.recorder import Recorder
from cluster.watch.alarms.alarm import Action, Alarm
from cluster.watch.alarms.alarms import preflight
from cluster.watch.alarms.first_batch import shares_of, too_few
from contracts.adapter import Adapter
from contracts.errors import RunStopped
from contracts.reports import StepReport
from contracts.rollout import ScoredGroup

IN_A_ROW = 3
ROLL_BACKS = 2


def alarms_due(events: Iterable[Event], step: int) -> list[AlarmRaised]:
    """Alarms that were raised at `step`, after which no update was booked. Where a pause ended a life of the run, it is
    done, and those beside it."""
    due: list[AlarmRaised] = []
    for event in events:
        if isinstance(event, Stopped) and any(a.action == Action.PAUSE and a.headline in event.headline for a in due):
            due = [alarm for alarm in due if alarm.action != Action.PAUSE]
        elif isinstance(event, AlarmRaised) and event.step == step:
            due.append(event)
    return due


class Health:
    """Halts or turns back a run. A halt wakes whoever waits."""

    def __init__(self, config: RunConfig, recorder: Recorder, state: RunState) -> None:
        self._config, self._recorder, self._state = config, recorder, state
        self._halted = ""
        self._roll_back_for = ""
        self._skipped_in_a_row = 0
        self._micro_batch_tokens = config.learner.micro_batch_tokens

    def resume(self) -> None:
        """From metrics.jsonl and events.jsonl, once the run stands where it stood: how many updates in a row were skipped,
        and what alarms asked for that nobody had done yet. A person who resumes after a halt gets all tries again."""
        written = self._recorder.lines
        lines = [line for line in written.metrics.look() if line["step"] <= self._state.step]
        skipped = sum(1 for _ in takewhile(lambda line: line.get("skipped"), reversed(lines)))
        self._skipped_in_a_row = skipped % ((ROLL_BACKS + 1) * IN_A_ROW)
        self._roll_back_for = ""
        if self._state.step >= self._config.learner.num_updates:
            return  # an alarm that came when all was made has nothing left to halt or turn back
        for due in alarms_due(written.events.look(), self._state.step):
            if getattr(self._config.alarms, due.alarm, due.action) == due.action:
                self._act(Alarm(due.alarm, Action(due.action), due.headline))

    def halt(self, reason: str) -> None:
        """The run ends with RunStopped at the next `check`, which writes a last checkpoint."""
        self._halted = self._halted or reason
        self._state.changed.notify()

    def check(self) -> None:
        if self._halted:
            raise RunStopped(self._halted)

    def apply(self, alarm: Alarm) -> None:
        """Report an alarm and do what its settings ask for."""
        self._recorder.event(AlarmRaised(alarm.headline, alarm.name, alarm.action.value, self._state.step))
        self._act(alarm)

    def _act(self, alarm: Alarm) -> None:
        if alarm.action is Action.PAUSE:
            self.halt(f"{alarm.headline} (alarms.{alarm.name} = 'pause'; 'warn' lets the run go on)")
        elif alarm.action is Action.ROLL_BACK:
            self._roll_back_for = alarm.headline

    def check_first_batch(self, batch: Sequence[ScoredGroup], dropped_rollouts: int) -> None:
        """Raises RunStopped for a batch that nothing can be learned from, before it costs a night. One too small to conclude
        from gives a note."""
        shares = shares_of(batch, dropped_rollouts)
        few = too_few(len(batch), dropped_rollouts, self._config.actors.rollouts_per_group)
        for alarm in preflight(
            truncated_share=shares.truncated,
            invalid_share=shares.invalid,
            zero_variance_share=shares.zero_variance,
            settings=self._config.alarms,
        ):
            if few:
                self._recorder.event(FirstBatchTooSmall(len(batch), alarm.headline))
            else:
                self.apply(alarm)
        self.check()

    async def after_update(self, report: StepReport, adapter: Adapter, learner: LearnerHandle) -> tuple[Adapter, str]:
        """The adapter to publish, and the name of the checkpoint whose weights it has under the present version, else
        an empty name."""
        self._tell_of_memory(report)
        reason = self._why_roll_back(report)
        return await self._roll_back(reason, adapter, learner) if reason else (adapter, "")

    def _tell_of_memory(self, report: StepReport) -> None:
        now, before = report.micro_batch_tokens, self._micro_batch_tokens
        if 0 < now < before:
            self._micro_batch_tokens = now
            headline = (
                f"the learner ran out of memory and goes on with micro-batches of {now} tokens in place of {before}: the same "
                f"gradient, in more pieces. `memr resume` with --set learner.micro_batch_tokens={now} spares the tries"
            )
            self._recorder.event(OutOfMemory(headline))

    def _why_roll_back(self, report: StepReport) -> str:
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if report.skipped else 0
        if report.skipped:
            self._recorder.event(UpdateSkipped(report.skipped, report.policy_version))
        if self._skipped_in_a_row and self._skipped_in_a_row % IN_A_ROW == 0:
            return f"{self._skipped_in_a_row} updates in a row were skipped, the last because {report.skipped}"
        reason, self._roll_back_for = self._roll_back_for, ""
        return reason

    async def _roll_back(self, reason: str, adapter: Adapter, learner: LearnerHandle) -> tuple[Adapter, str]:
        checkpoint = await asyncio.to_thread(newest_verified, self._config.run_path)
        if checkpoint is None or self._skipped_in_a_row > ROLL_BACKS * IN_A_ROW:
            self.halt(
                f"{reason}, and going back to a checkpoint does not help. Lower learner.learning_rate, or train in "
                "learner.dtype = 'float32' (`memr resume` takes either with --override)"
            )
            return adapter, ""
        adapter = await learner.roll_back(checkpoint / "learner")
        self._recorder.event(RolledBack(f"back to the weights of {checkpoint.name}: {reason}"))
        return adapter, checkpoint.name
