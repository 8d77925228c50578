"""Every way a run can end is resumed: reason x moment x lag, learners with and without a model."""

import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cluster.record.checkpoint import read_checkpoint
from cluster.record.resume import read_recovered_run
from contracts.errors import RunStopped
from contracts.problem import Lease
from contracts.rollout import FinishReason
from tests.unit.cluster.stops import (
    STOPS,
    UPDATES,
    ChainedLearner,
    Moment,
    check_finished,
    check_stopped,
    final_weights,
    live,
    new_run,
    scripted_learner,
    stop_config,
    tiny_learner,
    trained_leases,
)

LAGS = (0, 1, 2)
MOMENTS = {
    "loading": Moment("loading"),
    "first_checkpoint": Moment("checkpointing"),
    "waiting": Moment("waiting", 1),
    "scoring": Moment("scoring", 1),
    "updating": Moment("updating", 2),
    "publishing": Moment("publishing", 2),
    "checkpointing": Moment("checkpointing", 4),
    "evaluating": Moment("evaluating", UPDATES),
}
IN_ORDER = ("ctrl_c", "halt", "pause", "fleet", "streak", "loop")


def chained(lag: int) -> ChainedLearner:
    return ChainedLearner(lag, delay_s=0.004)


async def whole(path: Path, lag: int, learner: Callable[[int], Any]) -> bytes:
    """The last weights of a run that nothing stopped."""
    run = new_run(stop_config(path, lag), learner(lag), random.Random(0))
    assert await live(run) is None
    check_finished(run)
    hashes = [adapter.name[len("v000006-") :] for adapter in (run.path / "adapters").glob("v*-*")]
    assert len(hashes) == len(set(hashes)) > 1, "each update changes the weights, or equal bytes would say nothing"
    return final_weights(run.path)


def matrix() -> list[Any]:
    """Every reason at every moment and lag; each reason, moment and lag in its turn is tried always, the rest is long."""
    cases = []
    for number, (reason, moment) in enumerate(product(STOPS, MOMENTS)):
        for lag in LAGS:
            turn = number % 2 == number // len(MOMENTS) % 2 and lag == number // 2 % len(LAGS)
            marks = [] if turn else [pytest.mark.long]
            cases.append(pytest.param(reason, moment, lag, marks=marks))
    return cases


@pytest.mark.parametrize(("reason", "moment", "lag"), matrix())
async def test_a_stop_for_any_reason_at_any_moment_is_taken_up(
    tmp_path: Path, reason: str, moment: str, lag: int
) -> None:
    config, noise = stop_config(tmp_path / "stopped", lag), random.Random(lag)
    stopped = new_run(config, chained(lag), noise)
    await live(stopped, MOMENTS[moment], reason)
    if reason in IN_ORDER and stopped.controller.restored:
        check_stopped(stopped)
    again = new_run(config, chained(lag), noise)
    assert await live(again) is None
    check_finished(again, all_trained=reason != "streak")
    if lag == 0 and reason != "streak":
        assert final_weights(again.path) == await whole(tmp_path / "whole", lag, chained)


@pytest.mark.parametrize("learner", [scripted_learner, tiny_learner])
@pytest.mark.parametrize("lag", [0, pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize("reason", ["ctrl_c", "loop", "kill"])
async def test_our_own_learners_stopped_while_they_update_are_taken_up(
    tmp_path: Path, reason: str, lag: int, learner: Callable[[int], Any]
) -> None:
    config, noise = stop_config(tmp_path / "stopped", lag), random.Random(lag)
    stopped = new_run(config, learner(lag), noise)
    await live(stopped, Moment("updating", 3, ticks=3), reason)
    assert stopped.controller.step < UPDATES, "it was stopped on the way"
    if reason != "kill":
        check_stopped(stopped)
    again = new_run(config, learner(lag), noise)
    assert await live(again) is None
    check_finished(again)
    if lag == 0:
        assert final_weights(again.path) == await whole(tmp_path / "whole", lag, learner)


@pytest.mark.parametrize("lag", LAGS)
async def test_after_a_preflight_pause_the_run_goes_on_with_the_batch_that_it_paused_over(
    tmp_path: Path, lag: int
) -> None:
    def cut_off(lease: Lease) -> FinishReason:
        return FinishReason.LENGTH

    first = new_run(stop_config(tmp_path, lag), chained(lag), random.Random(0))
    for worker in first.workers.ready:
        worker.finish = cut_off
    error = await live(first)
    assert isinstance(error, RunStopped)
    assert "first batch: 100% of rollouts ran into the token limit" in str(error)
    check_stopped(first)
    assert first.controller.step == 0
    past = read_recovered_run(first.path, stop_config(tmp_path, lag))
    assert len(past.buffered) >= 4, "the batch is there for the resume: in the checkpoint, or in the log behind it"
    warned = stop_config(tmp_path, lag, alarms={"preflight_truncated": "warn"})
    again = new_run(warned, chained(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)
    assert trained_leases(again.path)[0] == [0, 1, 2, 3]


@pytest.mark.parametrize("lag", LAGS)
async def test_after_nine_skipped_updates_the_run_stops_with_the_last_one_booked(tmp_path: Path, lag: int) -> None:
    config = stop_config(tmp_path, lag, learner={"num_updates": 14}, cluster={"checkpoint_every_updates": 1})
    first = new_run(config, ChainedLearner(lag, skips=range(2, 99)), random.Random(0))
    error = await live(first)
    assert isinstance(error, RunStopped)
    assert "9 updates in a row were skipped" in str(error)
    assert first.controller.step == 10
    check_stopped(first)
    again = new_run(config, chained(lag), random.Random(0))
    assert await live(again) is None
    assert again.controller.step == again.learner.version == 14
    assert len(trained_leases(again.path)) == 14


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("reason", ["ctrl_c", "loop", "kill"])
async def test_what_stops_a_run_after_a_roll_back_does_not_undo_it(tmp_path: Path, reason: str, lag: int) -> None:
    """Killed before the checkpoint that follows it, too: the log tells of the roll-back."""
    config = stop_config(tmp_path / "stopped", lag)
    weights = []
    for path, stops in ((tmp_path / "whole", False), (tmp_path / "stopped", True)):
        config = stop_config(path, lag)
        first = new_run(config, ChainedLearner(lag, delay_s=0.004, skips=(3, 4, 5)), random.Random(0))
        await live(first, Moment("checkpointing", 5) if stops else None, reason)
        if stops:
            again = new_run(config, ChainedLearner(lag, skips=(3, 4, 5)), random.Random(0))
            assert await live(again) is None
            assert not [e for e in again.lines("events.jsonl") if e["event"] == "replayed_differently"]
            check_finished(again)
        assert [e for e in first.lines("events.jsonl") if e["event"] == "rolled_back"]
        weights.append(final_weights(config.run_path))
    if lag == 0:
        assert weights[0] == weights[1]


@pytest.mark.parametrize("lag", LAGS)
async def test_stopped_again_and_again_it_still_ends_where_it_should(tmp_path: Path, lag: int) -> None:
    config, noise = stop_config(tmp_path / "stopped", lag), random.Random(7)
    for life, reason in enumerate(["pause", "loop", "ctrl_c", "fleet", "halt"]):
        run = new_run(config, chained(lag), noise)
        await live(run, Moment("updating", life), reason)
        check_stopped(run)
    last = new_run(config, chained(lag), noise)
    assert await live(last) is None
    check_finished(last)
    if lag == 0:
        assert final_weights(last.path) == await whole(tmp_path / "whole", lag, chained)


async def test_ctrl_c_while_the_last_evaluation_runs_leaves_it_to_the_next_life(tmp_path: Path) -> None:
    config = stop_config(tmp_path, 1)
    run = new_run(config, chained(1), random.Random(0))
    for worker in run.workers.ready:
        worker.delay_s = lambda lease: 5.0 if lease.lease_id < 0 and lease.policy_version == UPDATES else 0.0
    await live(run, Moment("evaluating", UPDATES, ticks=50), "ctrl_c")
    assert run.controller.stopped_early
    assert UPDATES not in [line["step"] for line in run.lines("eval.jsonl")]
    again = new_run(config, chained(1), random.Random(0))
    assert await live(again) is None
    assert not again.controller.stopped_early
    check_finished(again)


async def test_a_stop_whose_checkpoint_cannot_be_written_says_so_and_resumes_from_the_one_before(
    tmp_path: Path,
) -> None:
    class Torn(ChainedLearner):
        async def save(self, directory: Path) -> None:
            await super().save(directory)
            if self.version == 3:
                (directory / "learner.json").write_text('{"policy_version": 4, "weights": "of another moment"}')

    config = stop_config(tmp_path, 0)
    run = new_run(config, Torn(0, delay_s=0.05), random.Random(0))
    error = await live(run, Moment("updating", 2), "loop")
    assert "a loop found a reason to stop" in str(error)
    assert "the checkpoint of step 3 cannot be read back" in str(error)
    past, _ = read_checkpoint(run.path)
    assert (past.step, past.notes) == (2, []), "the bad one has no name"
    again = new_run(config, chained(0), random.Random(0))
    assert await live(again) is None
    check_finished(again)


async def test_workers_that_are_lost_for_good_stop_a_run_that_resumes_with_new_ones(tmp_path: Path) -> None:
    """The fleet's own way below its floor, with its own message, while the learner is in an update."""
    config = stop_config(tmp_path, 2)
    run = new_run(config, ChainedLearner(2, delay_s=0.2), random.Random(0))
    error = await live(run, Moment("updating", 1), "fleet")
    assert "cluster.min_workers is 1" in str(error)
    assert run.controller.step == 2, "the update under way was booked"
    check_stopped(run)
    again = new_run(config, chained(2), random.Random(0))
    assert await live(again) is None
    check_finished(again)
