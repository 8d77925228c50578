"""The default profile of memory was "memr" up to commit be586f9: what a run of that time says to today's, and to a changed one.

tests/data/configs/memr_57c9e8c.toml is what a run of 57c9e8c wrote; be586f9 mixed the rewards as today's "memr" does.
"""

from pathlib import Path

import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.record.resume import begin_or_go_on, check_same_run, nothing_left
from cluster.record.run_dir import create_run, write_summary
from contracts.errors import ConfigError
from tests.harness import make_config

STORED = (Path(__file__).parents[2] / "data" / "configs" / "memr_57c9e8c.toml").read_text()
STORED = STORED.replace('mix = "capped"', 'mix = "scaled"\nno_signal = "centred"')


def run_with(directory: Path, text: str) -> Path:
    directory.mkdir()
    (directory / "config.toml").write_text(text)
    (directory / "manifest.json").write_text("{}")
    return directory


def with_todays_default(directory: Path) -> RunConfig:
    """The user's own file, which names no profile, over a run of that time."""
    keys = ("profile", "exploit_weight", "explore_weight")
    return load_config(directory / "config.toml", unset=[f"memory.{key}" for key in keys])


def test_a_run_begun_with_the_older_default_says_so(tmp_path: Path) -> None:
    run = run_with(tmp_path / "r", STORED)
    with pytest.raises(ConfigError) as refused:
        check_same_run(run, with_todays_default(run), {}, override=False)
    hint = "(another default up to commit be586f9; `memr resume` goes on with the run's own)"
    assert f"memory.profile: was 'memr', is 'remember' {hint}" in str(refused.value)
    assert f"memory.exploit_weight: was 1.0, is 0.0 {hint}" in str(refused.value)
    assert f"memory.explore_weight: was 1.0, is 0.0 {hint}" in str(refused.value)
    check_same_run(run, load_config(run / "config.toml"), {}, override=False)


def test_another_profile_is_no_default(tmp_path: Path) -> None:
    run = run_with(tmp_path / "r", STORED)
    paper = load_config(run / "config.toml", ["memory.profile=paper"], ["memory.mix"])
    with pytest.raises(ConfigError, match=r"memory\.profile: was 'memr', is 'paper'\n"):
        check_same_run(run, paper, {}, override=False)


def test_a_finished_run_of_that_time_shows_its_result(tmp_path: Path) -> None:
    run = run_with(tmp_path / "r", STORED)
    write_summary(run, {"exit_code": 0, "updates": 50, "wall_s": 1.0})
    assert nothing_left(run, with_todays_default(run))
    other = with_todays_default(run)
    other = other.model_copy(update={"run": other.run.model_copy(update={"seed": 9})})
    with pytest.raises(ConfigError, match=r"run\.seed: was 0, is 9"):
        nothing_left(run, other)


def test_a_finished_run_of_today_that_paid_is_not_shown_for_one_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "stored.toml").write_text(STORED)
    run = run_with(tmp_path / "r", dump_config(load_config(tmp_path / "stored.toml")))
    write_summary(run, {"exit_code": 0, "updates": 50, "wall_s": 1.0})
    with pytest.raises(ConfigError, match=r"memory\.profile: was 'memr', is 'remember'"):
        nothing_left(run, with_todays_default(run))


@pytest.mark.parametrize("frames", [[], [b"frame"]])
@pytest.mark.parametrize("override", [False, True])
def test_a_profile_that_brings_none_of_its_settings_is_refused(
    tmp_path: Path, frames: list[bytes], override: bool
) -> None:
    """As memr resume RUN --set memory.profile=memr gives it: the weights are in the run's config.toml, both 0."""
    first = make_config(tmp_path, memory={"profile": "remember"})
    identity = {"template_hash": "t"}
    path = create_run(first, identity)
    for frame in frames:
        (path / "log" / "000000").write_bytes(frame)
    by_name = load_config(path / "config.toml", ["memory.profile=memr"])
    assert not by_name.memory.pays
    with pytest.raises(ConfigError, match=r"'memr' would be a name only.*exploit_weight, explore_weight would stay"):
        begin_or_go_on(by_name, CharTokenizer("abc"), identity, "model", override=override)


def test_a_profile_that_comes_whole_is_taken_with_override(tmp_path: Path) -> None:
    first = make_config(tmp_path, memory={"profile": "remember"})
    path = create_run(first, {})
    (path / "log" / "000000").write_bytes(b"frame")
    whole = make_config(tmp_path, memory={"profile": "memr"})
    changes = begin_or_go_on(whole, CharTokenizer("abc"), {}, "model", override=True)
    assert {d.name for d in changes} == {"memory.profile", "memory.exploit_weight", "memory.explore_weight"}
    off = load_config(path / "config.toml", ["memory.profile=off"])
    assert [d.name for d in begin_or_go_on(off, CharTokenizer("abc"), {}, "model", override=True)] == ["memory.profile"]
