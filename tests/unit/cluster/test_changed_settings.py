"""Settings given when a run is resumed: applied and written down, or refused; never ignored."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config.run_config import RunConfig, load_config
from cluster.flow.drive import drive
from cluster.record.resume import check_same_run, nothing_left, record_changes
from cluster.record.run_dir import create_run, write_summary
from contracts.errors import ConfigError, DataError, RunStopped
from tests.harness import Run, make_config


def begun(path: Path, **sections: dict[str, Any]) -> RunConfig:
    config = make_config(path, lag=0, updates=300, **sections)
    create_run(config, {})
    return config


def finished(path: Path, **sections: dict[str, Any]) -> RunConfig:
    config = begun(path, **sections)
    write_summary(config.run_path, {"exit_code": 0, "updates": 300, "wall_s": 1.0})
    return config


def test_a_finished_run_is_finished_until_more_updates_are_asked_for(tmp_path: Path) -> None:
    config = finished(tmp_path)
    assert nothing_left(config.run_path, config)
    assert not nothing_left(config.run_path, make_config(tmp_path, updates=320))


def test_a_longer_run_that_was_interrupted_while_it_loaded_is_not_finished(tmp_path: Path) -> None:
    """The wish is in config.toml, the summary still that of the shorter run."""
    config = finished(tmp_path)
    more = make_config(tmp_path, updates=320)
    record_changes(config.run_path, more, check_same_run(config.run_path, more, {}, override=False))
    assert not nothing_left(config.run_path, more)


@pytest.mark.parametrize("updates", [300, 200])
def test_a_finished_run_refuses_settings_that_it_would_ignore(tmp_path: Path, updates: int) -> None:
    config = finished(tmp_path)
    with pytest.raises(ConfigError, match=r"made all of its 300 updates.*(?s:.)*learner_call_s: was .*, is 1.0"):
        nothing_left(config.run_path, make_config(tmp_path, updates=updates, cluster={"learner_call_s": 1.0}))


def test_more_updates_and_what_leaves_the_run_the_same_are_taken_and_written_down(tmp_path: Path) -> None:
    config = begun(tmp_path)
    more = make_config(tmp_path, updates=320, alarms={"entropy": "warn"})
    changes = check_same_run(config.run_path, more, {}, override=False)
    record_changes(config.run_path, more, changes)
    assert load_config(config.run_path / "config.toml") == more
    [line] = (config.run_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["changes"] == {
        "learner.num_updates": {"before": 300, "now": 320},
        "alarms.entropy": {"before": "pause", "now": "warn"},
    }
    assert check_same_run(config.run_path, more, {}, override=False) == [], "once is enough"


def test_a_run_that_was_moved_keeps_the_place_where_it_began(tmp_path: Path) -> None:
    config = begun(tmp_path)
    moved = make_config(tmp_path / "elsewhere", updates=301)
    record_changes(config.run_path, moved, check_same_run(config.run_path, moved, {}, override=False))
    assert load_config(config.run_path / "config.toml").run == config.run


def test_fewer_updates_are_refused_with_the_rule_and_what_is_taken(tmp_path: Path) -> None:
    config = begun(tmp_path)
    (config.run_path / "metrics.jsonl").write_text('{"step": 19}\n{"step": 20}\n')
    fewer, undone = make_config(tmp_path, updates=200), make_config(tmp_path, updates=10)
    for now, is_ in ((fewer, 200), (undone, 10)):
        with pytest.raises(
            ConfigError,
            match=rf"num_updates: was 300, is {is_} \(it may grow, not shrink, and 20 updates are made: 300 or more are taken, "
            r"or with --override 20 to 299\. To end a run before, `memr stop ",
        ):
            check_same_run(config.run_path, now, {}, override=False)
    [change] = check_same_run(config.run_path, fewer, {}, override=True)
    assert change.now == 200
    with pytest.raises(ConfigError, match="20 updates are made"):
        check_same_run(config.run_path, undone, {}, override=True)


def test_fewer_updates_than_a_finished_run_has_made_are_refused_with_the_rule(tmp_path: Path) -> None:
    config = finished(tmp_path)
    with pytest.raises(
        ConfigError, match=r"was 300, is 10 \(it may grow, not shrink, and 300 updates are made: 300 or more are"
    ):
        nothing_left(config.run_path, make_config(tmp_path, updates=10))


@pytest.mark.parametrize("learner", [{"schedule": "cosine"}, {"schedule": "linear"}, {"warmup_share": 0.1}])
def test_more_updates_under_a_schedule_that_ends_want_override(tmp_path: Path, learner: dict[str, Any]) -> None:
    config = begun(tmp_path, learner=learner)
    more = make_config(tmp_path, learner=learner | {"num_updates": 600})
    with pytest.raises(ConfigError, match=r"was 300, is 600 \(learner.schedule = .* of update 300 it was .* would be"):
        check_same_run(config.run_path, more, {}, override=False)
    [change] = check_same_run(config.run_path, more, {}, override=True)
    assert change.name == "learner.num_updates"


def test_a_seed_that_was_insisted_on_is_kept_and_told_once(tmp_path: Path) -> None:
    config = begun(tmp_path)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": config.run.seed + 1})})
    [change] = check_same_run(config.run_path, other, {}, override=True)
    record_changes(config.run_path, other, [change])
    assert load_config(config.run_path / "config.toml").run == other.run
    assert check_same_run(config.run_path, other, {}, override=False) == []


@pytest.mark.parametrize("place", [{"name": "renamed"}, {"directory": "elsewhere"}])
def test_a_run_may_lie_under_another_name(tmp_path: Path, place: dict[str, str]) -> None:
    """`cp -r runs/a runs/b; memr resume runs/b`: what config.toml says of the place is where the run began."""
    config = finished(tmp_path)
    there = config.model_copy(update={"run": config.run.model_copy(update=place)})
    assert check_same_run(config.run_path, there, {}, override=False) == []
    assert nothing_left(config.run_path, there)
    more = there.model_copy(update={"learner": there.learner.model_copy(update={"num_updates": 320})})
    record_changes(config.run_path, more, check_same_run(config.run_path, more, {}, override=False))
    kept = load_config(config.run_path / "config.toml")
    assert kept.run == config.run
    assert kept.learner.num_updates == 320


async def test_settings_are_written_down_before_anything_new_and_not_if_the_run_cannot_be_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(begun(tmp_path))
    told: list[str] = []
    monkeypatch.setattr(run.controller, "restore", refuse)
    with pytest.raises(DataError, match="another encoder"):
        await drive(run.controller, run.recorder, lambda: None, lambda: told.append("written"))
    assert told == []

    async def taken_up() -> bool:
        told.append("taken up")
        return False

    async def trains() -> None:
        told.append("trains")
        raise RunStopped("enough")

    monkeypatch.setattr(run.controller, "restore", taken_up)
    monkeypatch.setattr(run.controller, "run", trains)
    with pytest.raises(RunStopped, match="enough"):
        await drive(run.controller, run.recorder, lambda: None, lambda: told.append("written"))
    assert told == ["taken up", "written", "trains"]
    run.close()


async def refuse() -> bool:
    raise DataError("another encoder")


def on_file(path: Path, data: str, **task: Any) -> RunConfig:
    return make_config(path, lag=0, updates=300, task={"kind": "file", "path": data} | task)


def test_data_may_move_while_its_hash_agrees(tmp_path: Path) -> None:
    before = on_file(tmp_path, "d.jsonl", held_out_path="/old/t.jsonl")
    create_run(before, {"data_hash": "same"})
    now = on_file(tmp_path, "/new/d.csv", held_out_path="/new/t.jsonl")
    changes = check_same_run(before.run_path, now, {"data_hash": "same"}, override=False)
    assert [change.name for change in changes] == ["task.path", "task.held_out_path"]
    record_changes(before.run_path, now, changes)
    assert load_config(before.run_path / "config.toml").task.path == "/new/d.csv"
    with pytest.raises(ConfigError, match="the data has changed .data_hash: recorded same, found other"):
        check_same_run(before.run_path, now, {"data_hash": "other"}, override=True)


def test_other_data_settings_are_another_run(tmp_path: Path) -> None:
    before = on_file(tmp_path, "/old/d.jsonl", held_out_path="/old/t.jsonl")
    create_run(before, {})
    for now in (on_file(tmp_path, "/old/d.jsonl"), on_file(tmp_path, "/old/d.jsonl", question_field="q")):
        with pytest.raises(ConfigError, match="cannot go on with other settings"):
            check_same_run(before.run_path, now, {}, override=False)


def test_users_code_may_move_but_not_become_other_code(tmp_path: Path) -> None:
    rewards = [{"name": "correctness"}, {"name": "/old/mine.py:length"}]
    before = make_config(tmp_path, lag=0, updates=300, task={"scorer": "/old/mine.py:close", "rewards": rewards})
    create_run(before, {})
    moved = [{"name": "correctness"}, {"name": "/new/mine.py:length"}]
    now = make_config(tmp_path, lag=0, updates=300, task={"scorer": "/new/mine.py:close", "rewards": moved})
    assert [c.name for c in check_same_run(before.run_path, now, {}, override=False)] == ["task.rewards", "task.scorer"]
    for scorer, parts in (
        ("/new/mine.py:far", moved),
        ("/new/mine.py:close", [*moved[:1], moved[1] | {"weight": 2.0}]),
    ):
        other = make_config(tmp_path, lag=0, updates=300, task={"scorer": scorer, "rewards": parts})
        with pytest.raises(ConfigError, match="cannot go on with other settings"):
            check_same_run(before.run_path, other, {}, override=False)


def test_a_finished_run_whose_data_moved_is_still_finished(tmp_path: Path) -> None:
    before = on_file(tmp_path, "/old/d.jsonl")
    create_run(before, {})
    write_summary(before.run_path, {"exit_code": 0, "updates": 300, "wall_s": 1.0})
    assert nothing_left(before.run_path, on_file(tmp_path, "/new/d.jsonl"))


def test_a_run_of_an_earlier_commit_knows_its_data_by_the_older_hash_alone(tmp_path: Path) -> None:
    before = on_file(tmp_path, "/old/d.jsonl")
    create_run(before, {"task_hash": "t"})
    assert check_same_run(before.run_path, before, {"task_hash": "t", "data_hash": "d"}, override=False) == []
    with pytest.raises(ConfigError, match="task_hash"):
        check_same_run(before.run_path, before, {"task_hash": "u", "data_hash": "d"}, override=False)
