"""Alarms act, a first batch without signal stops the run, bad updates are skipped and rolled back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.flow.run_health import Health, alarms_due
from cluster.flow.run_state import RunState
from cluster.record.checkpoint import read_checkpoint
from cluster.record.events.registry import from_line
from cluster.record.events.training import FirstBatchTooSmall
from cluster.record.incidents import headlines
from cluster.record.recorder import Recorder
from cluster.watch.alarms.alarm import Action, Alarm
from cluster.watch.alarms.first_batch import too_few
from cluster.watch.console import event_text
from contracts.adapter import Adapter
from contracts.errors import RunStopped
from contracts.problem import Lease
from contracts.reports import StepReport
from contracts.rollout import FinishReason, ScoredGroup
from tests.fakes import FakeLearner, FakeWorker, make_group, make_scored
from tests.harness import Run, make_config


class Skipping(FakeLearner):
    """Skips the updates to these versions."""

    def __init__(self, versions: Sequence[int]) -> None:
        super().__init__(0)
        self.skips = set(versions)

    async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
        report, adapter = await super().update(groups)
        return replace(report, skipped="a tensor is not finite" if self.version in self.skips else ""), adapter


def incidents(run: Run) -> list[tuple[str, str]]:
    return [(e["event"], e["headline"]) for e in run.lines("events.jsonl") if "headline" in e]


async def test_two_skipped_updates_are_told_and_nothing_more(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=5), learner=Skipping([2, 3]))
    await run.run()
    assert incidents(run) == [("update_skipped", "a tensor is not finite")] * 2


async def test_three_in_a_row_go_back_to_the_newest_whole_checkpoint_which_is_followed_by_a_new_one(
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path, updates=6, cluster={"checkpoint_every_updates": 2})
    run = Run(config, learner=Skipping([3, 4, 5]))
    await run.run()
    assert ("roll_back", "step-000004") in run.events
    assert incidents(run)[-1] == (
        "rolled_back",
        "back to the weights of step-000004: 3 updates in a row were skipped, the last because a tensor is not finite",
    )
    saved = [event["step"] for event in run.lines("events.jsonl") if event["event"] == "checkpoint"]
    assert saved == [2, 4, 5, 6], "5: what follows is not replayed from before the roll-back"
    assert [line["policy_version"] for line in run.lines("metrics.jsonl")] == [1, 2, 3, 4, 5, 6], (
        "versions never go back"
    )


async def test_when_going_back_does_not_help_the_run_stops_with_the_knob_to_turn(tmp_path: Path) -> None:
    config = make_config(tmp_path, updates=30, cluster={"checkpoint_every_updates": 1})
    run = Run(config, learner=Skipping(range(2, 40)))
    with pytest.raises(
        RunStopped, match=r"9 updates in a row were skipped.*does not help. Lower learner.learning_rate"
    ):
        await run.run()
    assert len([event for event in run.events if event[0] == "roll_back"]) == 2


async def test_without_a_checkpoint_three_bad_updates_stop_the_run(tmp_path: Path) -> None:
    run = Run(make_config(tmp_path, updates=6), learner=Skipping([1, 2, 3]))
    with pytest.raises(RunStopped, match="3 updates in a row were skipped"):
        await run.run()


async def test_a_first_batch_of_cut_off_answers_stops_before_the_first_update(tmp_path: Path) -> None:
    def cut_off(lease: Lease) -> FinishReason:
        return FinishReason.LENGTH

    run = Run(make_config(tmp_path), workers=[FakeWorker(finish=cut_off)])
    with pytest.raises(RunStopped, match=r"first batch: 100% of rollouts ran into the token limit.*max_new_tokens"):
        await run.run()
    assert not [event for event in run.events if event[0] == "update"]


async def test_the_same_with_the_alarm_off_goes_on(tmp_path: Path) -> None:
    config = make_config(tmp_path, updates=2, alarms={"preflight_truncated": "warn"})
    run = Run(config, workers=[FakeWorker(finish=lambda lease: FinishReason.LENGTH)])
    await run.run()
    assert run.learner.version == 2
    assert incidents(run)[0][0] == "alarm_preflight_truncated"


@pytest.mark.parametrize("groups", [2, 3])
async def test_a_first_batch_too_small_to_conclude_from_gives_a_note(tmp_path: Path, groups: int) -> None:
    config = make_config(tmp_path, updates=2, cluster={"groups_per_batch": groups})
    run = Run(config, workers=[FakeWorker(finish=lambda lease: FinishReason.LENGTH)])
    await run.run()
    assert run.learner.version == 2
    assert [kind for kind, *_ in incidents(run) if "preflight" in kind] == []
    [note] = [e for e in map(from_line, run.lines("events.jsonl")) if isinstance(e, FirstBatchTooSmall)]
    assert note.shown
    assert event_text(note).startswith(
        f"note: {groups} groups, too few to conclude from: first batch: 100% of rollouts ran into"
    )


def test_groups_that_were_dropped_were_looked_at_too() -> None:
    assert too_few(3, 7, 8)
    assert not too_few(3, 8, 8)
    assert not too_few(4, 0, 8)


@pytest.mark.parametrize(("action", "ends"), [(Action.WARN, False), (Action.PAUSE, True), (Action.ROLL_BACK, False)])
async def test_an_alarm_is_told_and_its_action_taken(tmp_path: Path, action: Action, ends: bool) -> None:
    class AtStepThree(FakeLearner):
        async def update(self, groups: Sequence[ScoredGroup]) -> tuple[StepReport, Adapter]:
            if self.version == 2:
                run.controller.health.apply(Alarm("entropy", action, "entropy fell"))
            return await super().update(groups)

    config = make_config(tmp_path, updates=6, cluster={"checkpoint_every_updates": 2})
    run = Run(config, learner=AtStepThree(0))
    if ends:
        with pytest.raises(RunStopped, match=r"entropy fell \(alarms.entropy = 'pause'; 'warn' lets the run go on\)"):
            await run.run()
        assert read_checkpoint(run.path)[0].step == 2, "train.py writes the last one"
    else:
        await run.run()
        assert run.learner.version == 6
    assert incidents(run)[0] == ("alarm_entropy", "entropy fell")
    assert (("roll_back", "step-000002") in run.events) == (action is Action.ROLL_BACK)


PAUSE = {"event": "alarm_entropy", "headline": "entropy fell", "action": "pause", "step": 7}
ROLL_BACK = {"event": "alarm_reward_mode", "headline": "one answer", "action": "roll_back", "step": 7}
OTHER_PAUSE = {"event": "alarm_invalid", "headline": "no answer is valid", "action": "pause", "step": 7}
OBEYED = {"event": "stopped", "headline": "entropy fell (alarms.entropy = 'pause'; 'warn' lets the run go on)"}
FLEET = {"event": "stopped", "headline": "0 rollout workers are left, cluster.min_workers is 1"}
OF_57C9E8C = {"event": "alarm_entropy", "headline": "entropy fell", "action": "pause"}


@pytest.mark.parametrize(
    ("events", "due"),
    [
        ([PAUSE], ["entropy"]),
        ([PAUSE, OBEYED], []),
        ([PAUSE, OTHER_PAUSE, OBEYED], []),
        ([PAUSE, FLEET], ["entropy"]),
        ([ROLL_BACK, PAUSE, OBEYED], ["reward_mode"]),
        ([OBEYED, PAUSE], ["entropy"]),
        ([PAUSE | {"step": 6}, ROLL_BACK | {"step": 6}], []),
        ([OF_57C9E8C], []),
        ([{"event": "published", "version": 7}], []),
    ],
)
def test_what_alarms_asked_for_is_due_until_it_was_done(events: list[dict[str, object]], due: list[str]) -> None:
    assert [alarm.alarm for alarm in alarms_due(map(from_line, events), 7)] == due


async def test_a_micro_batch_that_was_halved_for_want_of_memory_is_told_once(tmp_path: Path) -> None:
    config = make_config(tmp_path, learner={"micro_batch_tokens": 4096})
    recorder = Recorder(tmp_path / "r")
    health, learner = Health(config, recorder, RunState()), FakeLearner(0)
    adapter = await learner.first_adapter()
    report, _ = await learner.update([make_scored(make_group(1))])
    for tokens in (4096, 4096, 1024, 1024, 0):
        await health.after_update(replace(report, micro_batch_tokens=tokens), adapter, learner)
    recorder.close()
    [told] = headlines(tmp_path / "r")
    assert "micro-batches of 1024 tokens in place of 4096: the same gradient" in told
    assert "--set learner.micro_batch_tokens=1024" in told
