"""A run that is killed at any moment and resumed trains what an uninterrupted one trains, and nothing twice."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.record.checkpoint import read_checkpoint, verify
from cluster.record.history import RecoveredState, read_recovered
from cluster.record.resume import calls_after, check_same_run, read_recovered_run
from cluster.record.run_log import BEGINNING
from contracts.errors import ConfigError, DataError
from contracts.problem import Lease
from contracts.rollout import RolloutGroup, ScoredGroup
from contracts.verdict import SCORER, Scored
from tests.fakes import FakeLearner, FakeMemory, FakeWorker, make_group, make_scored
from tests.harness import Run, make_config

UPDATES = 12


class HalfJudged(FakeWorker):
    """The scorer fails over the first rollout of each group."""

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        return [half_judged(group) for group in await super().sample(leases)]


def half_judged(group: RolloutGroup) -> RolloutGroup:
    first, *rest = group.rollouts
    assert isinstance(first.verdict, Scored)
    failed = replace(first, verdict=replace(first.verdict, failed=(SCORER,), note="f failed"))
    return replace(group, rollouts=(failed, *rest))


def parts(lag: int, noise: random.Random) -> dict[str, Any]:
    """Everything takes a moment, and not always the same."""
    return {
        "workers": [HalfJudged(f"w{i}", delay_s=lambda lease: noise.uniform(0, 0.004)) for i in range(2)],
        "memory": FakeMemory(delay_s=0.001),
        "learner": FakeLearner(lag, delay_s=0.002),
    }


async def train(path: Path, lag: int, seed: int, *, interrupted: bool, **sections: dict[str, Any]) -> list[Run]:
    """The processes that it took, one after the other; each but the last was killed at a random moment."""
    noise = random.Random(seed)
    config = make_config(path, lag=lag, updates=UPDATES, **sections)
    runs: list[Run] = []
    while True:
        threads = ThreadPoolExecutor(2)
        asyncio.get_running_loop().set_default_executor(threads)
        run = Run(config, **parts(lag, noise) | ({} if config.memory.enabled else {"memory": None}))
        runs.append(run)
        life = asyncio.ensure_future(run.run())
        alive_s = noise.uniform(0.005, 0.08) if interrupted and len(runs) < 12 else 30.0
        done, _ = await asyncio.wait([life], timeout=alive_s)
        if done:
            await life
            return runs
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        threads.shutdown(wait=True)  # a real death ends them too; here they must not write into the next life


def trained(path: Path) -> list[tuple[int, list[int]]]:
    """(step, lease ids) of every update in the log."""
    found = []
    from cluster.record.history import Kind
    from cluster.record.run_log import read_log

    for frame in read_log(path / "log"):
        if frame.kind == Kind.TRAINED:
            fields = json.loads(frame.payload)
            found.append((fields["step"], fields["leases"]))
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_synchronous_killed_anywhere_gives_the_same_batches(tmp_path: Path, seed: int) -> None:
    sections = {"cluster": {"checkpoint_every_updates": 3}, "eval": {"problems": 3, "every_updates": 4}}
    runs = await train(tmp_path, 0, seed, interrupted=True, **sections)
    path = runs[-1].path
    assert trained(path) == [(step + 1, list(range(4 * step, 4 * step + 4))) for step in range(UPDATES)]
    assert [line["step"] for line in runs[-1].lines("metrics.jsonl")] == list(range(1, UPDATES + 1))
    counted = [(line["rollouts_judged"], line["tokens_generated"]) for line in runs[-1].lines("metrics.jsonl")]
    assert counted == [(4 * 2, 4 * 2 * 3)] * UPDATES, "lines that were lost and written again too"
    assert [line["reward_errors"] for line in runs[-1].lines("metrics.jsonl")] == [{SCORER: 0.5}] * UPDATES
    assert sorted(line["step"] for line in runs[-1].lines("eval.jsonl")) == [0, 4, 8, 12]
    assert runs[-1].learner.version == UPDATES
    assert runs[-1].memory.version == 4 * UPDATES, "memory was told of every group once"


@pytest.mark.parametrize("seed", range(8))
async def test_asynchronous_killed_anywhere_trains_every_problem_once_and_versions_never_go_back(
    tmp_path: Path, seed: int
) -> None:
    runs = await train(tmp_path, 2, seed, interrupted=True, cluster={"checkpoint_every_updates": 3})
    path = runs[-1].path
    batches = trained(path)
    assert [step for step, _ in batches] == list(range(1, UPDATES + 1))
    assert Counter(lease for _, leases in batches for lease in leases).most_common(1)[0][1] == 1
    ledger = runs[-1].lines("metrics.jsonl")[-1]["ledger"]
    assert (ledger["trained"], ledger["failed"], ledger["dropped"]) == (4 * UPDATES, 0, 0)
    booked = [line for line in runs[-1].lines("ledger/events.jsonl") if line["fate"] == "trained"]
    assert Counter(line["lease_id"] for line in booked) == Counter(lease for _, leases in batches for lease in leases)


async def test_a_crash_costs_no_finished_rollout(tmp_path: Path) -> None:
    """Killed in the middle of an update: what was sampled before is not sampled again."""
    config = make_config(tmp_path, lag=0, updates=2)
    first = Run(config, learner=FakeLearner(0, delay_s=30.0))
    life = asyncio.ensure_future(first.run())
    while not any(event[0] == "score" for event in first.events):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    second = Run(config)
    await second.run()
    sampled = [lease for event in second.events if event[0] == "sample" for lease in event[3]]
    assert sampled == [4, 5, 6, 7]
    resumed = next(line for line in second.lines("events.jsonl") if line["event"] == "resumed")
    assert (resumed["groups_taken_up"], resumed["memory_difference"]) == (4, 0.0)


async def test_without_memory_and_with_late_memory_it_is_the_same(tmp_path: Path) -> None:
    off = await train(tmp_path / "off", 1, 3, interrupted=True, memory={"profile": "off"})
    assert len(trained(off[-1].path)) == UPDATES
    late = await train(tmp_path / "late", 1, 4, interrupted=True, memory={"deadline_s": 0.0005, "late_policy": "zero"})
    assert Counter(lease for _, leases in trained(late[-1].path) for lease in leases).most_common(1)[0][1] == 1


@pytest.mark.parametrize("without_bonus", [{"deadline_s": 0.0005, "late_policy": "zero"}, {"profile": "remember"}])
@pytest.mark.parametrize("seed", range(4))
async def test_killed_anywhere_memory_hears_of_every_group_that_went_on_once(
    tmp_path: Path, seed: int, without_bonus: dict[str, Any]
) -> None:
    """What it was told, by all processes together: a group that went on before it was sent is told after the resume,
    one that memory's snapshot or the log holds is not told as something new."""
    runs = await train(
        tmp_path, 1, seed, interrupted=True, memory=without_bonus, cluster={"checkpoint_every_updates": 3}
    )
    last = runs[-1]
    past = read_recovered_run(last.path, make_config(tmp_path, lag=1, updates=UPDATES, memory=without_bonus))
    known = {scored.group.lease_id for call in told_ever(last.path) for scored in call}
    assert known | past.unanswered.keys() | past.sampled.keys() >= set(range(4 * UPDATES))
    assert not known & past.unanswered.keys()
    assert last.memory.version + len(past.unanswered) == 4 * UPDATES


def told_ever(path: Path) -> list[tuple[ScoredGroup, ...]]:
    return read_recovered(path / "log", RecoveredState(), BEGINNING, memory_on=True).calls


async def finished(path: Path) -> Run:
    config = make_config(path, lag=1, updates=9, cluster={"checkpoint_every_updates": 2, "checkpoints_kept": 3})
    run = Run(config)
    await run.run()
    await run.controller.checkpoint()
    run.close()
    return run


@pytest.mark.parametrize("damage", ["truncate", "remove", "edit", "manifest"])
async def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path: Path, damage: str) -> None:
    run = await finished(tmp_path)
    newest = sorted((run.path / "checkpoints").glob("step-*"))[-1]
    file = newest / "ledger.parquet"
    if damage == "manifest":
        (newest / "checkpoint.json").write_text('{"step": 9')
    elif damage == "remove":
        file.unlink()
    else:
        data = file.read_bytes()
        file.write_bytes(data[:-7] if damage == "truncate" else data[:20] + b"x" + data[21:])
    past, _ = read_checkpoint(run.path)
    assert past.step == 8
    assert len(past.notes) == 1
    assert newest.name in past.notes[0]


async def test_old_checkpoints_go_once_newer_ones_were_read_back(tmp_path: Path) -> None:
    run = await finished(tmp_path)
    folders = sorted((run.path / "checkpoints").glob("step-*"))
    assert [folder.name for folder in folders] == ["step-000006", "step-000008", "step-000009"]
    for folder in folders:
        verify(folder)


async def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    run = await finished(tmp_path)
    newest = sorted((run.path / "checkpoints").glob("step-*"))[-1]
    manifest = json.loads((newest / "checkpoint.json").read_text())
    manifest["sha256"]["../../../../etc/passwd"] = "0"
    (newest / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="outside the checkpoint"):
        verify(newest)


def test_a_run_without_a_past_begins_at_the_beginning(tmp_path: Path) -> None:
    assert read_recovered_run(tmp_path, make_config(tmp_path)) == RecoveredState()


def test_another_run_is_refused_with_every_difference_and_what_may_change_may_change(tmp_path: Path) -> None:
    before = make_config(tmp_path)
    (tmp_path / "config.toml").write_text(dump_config(before))
    (tmp_path / "manifest.json").write_text(json.dumps({"template_hash": "t", "task_hash": "d"}))
    same = {"template_hash": "t", "task_hash": "d"}
    check_same_run(
        tmp_path,
        make_config(tmp_path, actors={"num_workers": 5}, cluster={"learner_call_s": 1.0}),
        same,
        override=False,
    )
    other = make_config(tmp_path, lag=1, actors={"temperature": 0.7})
    with pytest.raises(ConfigError) as refused:
        check_same_run(tmp_path, other, same, override=False)
    assert "actors.temperature: was 1.0, is 0.7" in str(refused.value)
    assert "learner.max_policy_lag: was 0, is 1" in str(refused.value)
    check_same_run(tmp_path, other, same, override=True)
    with pytest.raises(ConfigError, match="the data has changed .task_hash: recorded d, found other data"):
        check_same_run(tmp_path, before, {"template_hash": "t", "task_hash": "other data"}, override=True)


def test_a_call_of_one_group_right_after_the_snapshot_is_told_again(tmp_path: Path) -> None:
    """A snapshot of version 5 holds groups 0 to 4; group 5 was scored against version 5."""
    snapshot = tmp_path / "snapshot-00000005"
    snapshot.mkdir()
    (snapshot / "manifest.json").write_text('{"memory_version": 5}')
    calls = [
        tuple(replace(make_scored(make_group(lease)), memory_version=lease) for lease in leases)
        for leases in [(2, 3), (4,), (5,), (6, 7)]
    ]
    told = calls_after(RecoveredState(calls=calls, memory_snapshot=snapshot))
    assert [[scored.group.lease_id for scored in call] for call in told] == [[5], [6, 7]]


async def test_log_and_metrics_are_synced_after_memory_has_saved_and_before_the_checkpoint_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory's snapshot may hold groups that came after the cut: the log must hold them too, and so must metrics.jsonl
    the lines of updates that no replay will write again."""
    run = Run(make_config(tmp_path, lag=1, updates=2))
    folder = run.path / "checkpoints" / "step-000002"
    order: list[tuple[str, bool, bool]] = []

    def noted(what: str) -> Callable[[], None]:
        def sync() -> None:
            saved = (folder.with_name(".step-000002.partial") / "memory" / "snapshot-1").exists()
            order.append((what, saved, folder.exists()))

        return sync

    await run.controller.run()
    monkeypatch.setattr(run.history, "sync", noted("log"))
    monkeypatch.setattr(run.recorder, "sync", noted("lines"))
    await run.controller.checkpoint()
    run.close()
    assert order[:2] == [("log", True, False), ("lines", True, False)]
    assert folder.exists()


async def lived_until(config: RunConfig, step: int) -> Run:
    """A life that dies in the middle of the update after `step`."""
    run = Run(config, learner=FakeLearner(config.learner.max_policy_lag, delay_s=0.005))
    life = asyncio.ensure_future(run.run())
    while run.controller.step < step:
        assert not life.done()
        await asyncio.sleep(0.001)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    return run


async def test_a_log_that_a_power_cut_shortened_below_the_checkpoint_loses_no_later_life(tmp_path: Path) -> None:
    """Life 1 of a shortened log used to write below the checkpoint's place, and life 2 to read none of it."""
    config = make_config(tmp_path, lag=1, updates=12, cluster={"checkpoint_every_updates": 5})
    first = await lived_until(config, 7)
    log = first.path / "log" / "000000.log"
    _, position = read_checkpoint(first.path)
    log.write_bytes(log.read_bytes()[: position.offset - 100])
    second = await lived_until(config, 9)
    [lost] = [line for line in second.lines("events.jsonl") if line["event"] == "adapters_set_aside"]
    assert {name[:7] for name in lost["names"]} >= {"v000007"}, "of life 1, and the log knows of 5"
    third = Run(config)
    await third.run()
    resumed = [line for line in third.lines("events.jsonl") if line["event"] == "resumed"]
    assert [(line["step"], line["updates_replayed"]) for line in resumed[:1]] == [(5, 0)]
    assert resumed[1]["step"] + resumed[1]["updates_replayed"] >= 9
    batches = trained(third.path)[-7:]
    assert [step for step, _ in batches] == list(range(6, 13))
    assert max(Counter(lease for _, leases in batches for lease in leases).values()) == 1
    assert third.lines("metrics.jsonl")[-1]["ledger"]["trained"] == 4 * 12


def test_a_run_begun_with_merged_weights_goes_on_with_them(tmp_path: Path) -> None:
    """As 57c9e8c wrote it: every setting is in config.toml, so another default changes nothing; given anew it is named."""
    unset: dict[str, Any] = {"engine": "transformers"}
    merged = make_config(tmp_path, model={"name": "base"}, actors=unset | {"lora_path": "merged"})
    (tmp_path / "config.toml").write_text(dump_config(merged))
    (tmp_path / "manifest.json").write_text("{}")
    own = load_config(tmp_path / "config.toml")
    check_same_run(tmp_path, own, {}, override=False)
    assert own.actors.merges_lora
    assert own.actors.merges_in_bfloat16
    with pytest.raises(ConfigError, match="lora_path: was 'merged', is 'auto'"):
        check_same_run(tmp_path, make_config(tmp_path, model={"name": "base"}, actors=unset), {}, override=False)
