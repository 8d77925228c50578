"""Checkpoints as commit 57c9e8c left them after a stop: the batch in the books alone, or a learner one update ahead. A run
that has one is resumed from the place before it, which the log leads on from: nothing is sampled or trained twice."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.record.checkpoint import MANIFEST, newest_checkpoint, newest_verified, prune_checkpoints, read_checkpoint
from cluster.record.checkpoint_parts import check_agree
from cluster.record.history import History
from cluster.record.ledger import LeaseStatus, Ledger, LedgerEvent
from cluster.record.run_log import RunLog
from contracts.errors import DataError
from storage.arrow import read_groups, write_groups
from tests.fakes import make_group, make_scored
from tests.unit.cluster.stops import (
    GROUPS,
    UPDATES,
    ChainedLearner,
    check_finished,
    final_weights,
    live,
    new_run,
    stop_config,
    trained_leases,
)

LAGS = (0, 1, 2)


def name_what_is_there(folder: Path) -> None:
    """checkpoint.json as it would have been of just these files."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def without_the_batch(folder: Path) -> None:
    """The batch was taken out of the buffer before it was booked: its leases are in the books alone."""
    groups = read_groups(folder / "buffered.parquet")
    write_groups(groups[GROUPS:], folder / "buffered.parquet")
    name_what_is_there(folder)


def learner_ahead(folder: Path) -> None:
    """The update under way was finished by the learner, and booked by nobody."""
    state = json.loads((folder / "learner" / "learner.json").read_text())
    state |= {"policy_version": state["policy_version"] + 1, "weights": "of an update that no frame tells of"}
    (folder / "learner" / "learner.json").write_text(json.dumps(state))
    name_what_is_there(folder)


async def stopped(path: Path, lag: int, after: int, breaks: Callable[[Path], None]) -> Path:
    """A run that stopped before its update `after` + 1, with a newest checkpoint as the old code wrote it."""
    run = new_run(stop_config(path, lag), ChainedLearner(lag, delay_s=0.004), random.Random(0))
    seen = run.controller.health.check

    def check() -> None:
        if run.controller.step == after and len(run.controller.stages.buffer) >= GROUPS:
            run.controller.health.halt("as an alarm")
            # The old code replaced a step's checkpoint by that of the stop.
            shutil.rmtree(run.path / "checkpoints" / f"step-{after:06d}", ignore_errors=True)
        seen()

    run.controller.health.check = check  # type: ignore[method-assign]
    assert await live(run) is not None
    newest = newest_checkpoint(run.path)
    assert newest is not None
    assert newest.name == f"step-{after:06d}"
    breaks(newest)
    return run.path


def fail_to_resume(path: Path, after: int) -> None:
    """What a resume by the old code added to the log before it failed: it trained another batch under the same step."""
    log = RunLog(path / "log")
    history = History(log)
    past, _ = read_checkpoint(path)
    first = 1 + max(
        json.loads(line)["lease_id"] for line in (path / "ledger" / "events.jsonl").read_text().splitlines()
    )
    assert past.notes
    groups = [make_group(lease, version=after) for lease in range(first, first + GROUPS)]
    for group in groups:
        history.ledger_event(LedgerEvent(group.lease_id, str(group.lease_id), LeaseStatus.IN_FLIGHT))
    history.sampled(groups)
    history.scored([make_scored(group, bonus=0.25) for group in groups])
    history.trained(after + 1, [group.lease_id for group in groups], "0" * 64)
    history.close()


@pytest.mark.parametrize("breaks", [without_the_batch, learner_ahead])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("lag", LAGS)
async def test_a_run_with_such_a_checkpoint_is_taken_up_and_trains_what_it_would_have(
    tmp_path: Path, lag: int, after: int, breaks: Callable[[Path], None]
) -> None:
    path = await stopped(tmp_path / "broken", lag, after, breaks)
    past, _ = read_checkpoint(path)
    assert past.step == max(0, after - 1) if after else past.checkpoint is None
    again = new_run(stop_config(tmp_path / "broken", lag), ChainedLearner(lag), random.Random(0))
    assert await live(again) is None
    check_finished(again)
    [note] = [e["reason"] for e in again.lines("events.jsonl") if e["event"] == "checkpoint_passed_over"]
    assert f"passed over step-{after:06d}" in note
    if lag == 0:
        whole = new_run(stop_config(tmp_path / "whole", 0), ChainedLearner(0), random.Random(0))
        assert await live(whole) is None
        assert final_weights(path) == final_weights(whole.path)


@pytest.mark.parametrize("breaks", [without_the_batch, learner_ahead])
@pytest.mark.parametrize("lag", [1, 2])
async def test_so_is_one_that_the_old_code_had_failed_to_resume(
    tmp_path: Path, lag: int, breaks: Callable[[Path], None]
) -> None:
    path = await stopped(tmp_path, lag, 2, breaks)
    fail_to_resume(path, 2)
    again = new_run(stop_config(tmp_path, lag), ChainedLearner(lag), random.Random(0))
    assert await live(again) is None
    assert again.controller.step == again.learner.version == UPDATES
    leases = [lease for batch in trained_leases(path) for lease in batch]
    assert len(leases) == len(set(leases)) == UPDATES * GROUPS
    ledger = again.lines("metrics.jsonl")[-1]["ledger"]
    assert ledger["issued"] == sum(ledger[fate] for fate in ("trained", "dropped", "failed", "in_flight", "buffered"))


async def test_a_broken_checkpoint_is_nothing_to_roll_back_to_and_pushes_out_no_good_one(tmp_path: Path) -> None:
    path = await stopped(tmp_path, 0, 4, learner_ahead)
    newest = newest_verified(path)
    assert newest is not None
    assert newest.name == "step-000002"
    prune_checkpoints(path, keep=1)
    assert [p.name for p in sorted((path / "checkpoints").iterdir())][-2:] == ["step-000002", "step-000004"]


@pytest.mark.parametrize("version", [2, 4])
def test_a_learner_before_or_after_the_step_is_of_another_moment(tmp_path: Path, version: int) -> None:
    (tmp_path / "learner").mkdir()
    (tmp_path / "learner" / "learner.json").write_text(json.dumps({"policy_version": version}))
    books = Ledger(lambda event: None).snapshot()
    check_agree(tmp_path, version, {}, books, [], [])
    with pytest.raises(DataError, match=f"a learner at version {version}, the checkpoint of step 3"):
        check_agree(tmp_path, 3, {}, books, [], [])
