"""A path in a configuration leads to the same file from everywhere; `--unset` takes a key away."""

import json
import shutil
from pathlib import Path

import pytest

from cluster.config.run_config import dump_config, load_config
from cluster.launch.model_store import model_before, model_of
from contracts.errors import ConfigError, LoadError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and data; the working directory is another one, with data of its own."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for place in (folder, elsewhere, folder / "data"):
        place.mkdir()
    for file in ("mine.jsonl", "data/mine.jsonl", "my_reward.py"):
        (folder / file).write_text("")
    (elsewhere / "here.jsonl").write_text("")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(elsewhere))
    return folder


def configured(folder: Path, task: str, head: str = "") -> Path:
    file = folder / "c.toml"
    file.write_text(f'{head}[task]\nkind = "file"\n{task}\n')
    return file


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("mine.jsonl", "project/mine.jsonl"),
        ("./data/mine.jsonl", "project/data/mine.jsonl"),
        ("../elsewhere/here.jsonl", "elsewhere/here.jsonl"),
        ("here.jsonl", "elsewhere/here.jsonl"),
        ("~/here.jsonl", "elsewhere/here.jsonl"),
        ("nowhere.jsonl", "project/nowhere.jsonl"),
    ],
)
@pytest.mark.parametrize("key", ["path", "held_out_path"])
def test_a_path_is_relative_to_the_file_that_names_it(
    project: Path, tmp_path: Path, key: str, given: str, found: str
) -> None:
    """Then to the working directory, where older configurations meant it to be."""
    other = "" if key == "path" else 'path = "mine.jsonl"\n'
    config = load_config(configured(project, f'{other}{key} = "{given}"'))
    assert getattr(config.task, key) == str(tmp_path / found)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("here.jsonl", "elsewhere/here.jsonl"),
        ("mine.jsonl", "project/mine.jsonl"),
        ("~/here.jsonl", "elsewhere/here.jsonl"),
        ("nowhere.jsonl", "elsewhere/nowhere.jsonl"),
    ],
)
def test_a_path_on_the_command_line_is_relative_to_the_working_directory(
    project: Path, tmp_path: Path, given: str, found: str
) -> None:
    config = load_config(configured(project, 'path = "mine.jsonl"'), [f"task.path={given}"])
    assert config.task.path == str(tmp_path / found)


def test_code_models_and_encoders_are_found_beside_the_configuration(project: Path) -> None:
    for folder in ("models/small", "encoders/mini"):
        (project / folder).mkdir(parents=True)
    head = '[model]\nname = "models/small"\n[memory]\nencoder = "./encoders/mini"\n'
    task = (
        'path = "mine.jsonl"\nscorer = "my_reward.py:close"\n'
        'rewards = [{name = "correctness"}, {name = "my_reward.py:length", weight = 0.5}]'
    )
    config = load_config(configured(project, task, head))
    assert config.model.name == str(project / "models/small")
    assert config.memory.encoder == str(project / "encoders/mini")
    assert config.task.scorer == f"{project}/my_reward.py:close"
    assert [part.name for part in config.task.rewards] == ["correctness", f"{project}/my_reward.py:length"]


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-0.5B-Instruct", "smollm2-135m-instruct"])
def test_what_is_no_path_stays_as_it_is(project: Path, name: str) -> None:
    task = 'path = "mine.jsonl"\nscorer = "package.module:close"'
    config = load_config(configured(project, task, f'[model]\nname = "{name}"\n'))
    assert (config.model.name, config.task.scorer) == (name, "package.module:close")


def test_a_stored_configuration_leads_to_the_same_files_from_everywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(configured(project, 'path = "mine.jsonl"'))
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(dump_config(config))
    monkeypatch.chdir("/")
    assert load_config(run / "config.toml") == config


def test_a_path_that_an_older_run_stored_is_relative_to_the_working_directory(project: Path, tmp_path: Path) -> None:
    run = configured(tmp_path / "elsewhere", 'path = "here.jsonl"').parent
    (run / "manifest.json").write_text("{}")
    assert load_config(run / "c.toml").task.path == str(tmp_path / "elsewhere/here.jsonl")


def test_unset_takes_keys_and_sections_away(project: Path) -> None:
    file = configured(project, 'path = "mine.jsonl"\nheld_out_path = "mine.jsonl"', "[learner]\nlora_r = 4\n")
    assert load_config(file).task.held_out_path is not None
    config = load_config(file, unset=["task.held_out_path", "learner", "eval.problems"])
    assert config.task.held_out_path is None
    assert (config.learner.lora_r, config.eval.problems) == (16, 200)
    assert load_config(file, ["learner.lora_r=2"], ["learner.lora_r"]).learner.lora_r == 2


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("task.held_out_pth", r"did you mean 'task\.held_out_path'"),
        ("tsk", "did you mean 'task'"),
        ("nothing.like.it", "give section.key"),
        ("task.path=3", "unknown key"),
        ("", "unknown key"),
    ],
)
def test_unset_of_an_unknown_key_says_what_was_meant(project: Path, key: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--unset {key}: unknown key.*{hint}" if hint != "unknown key" else hint):
        load_config(configured(project, 'path = "mine.jsonl"'), unset=[key])


def test_a_byte_order_mark_is_no_part_of_a_configuration(project: Path) -> None:
    file = configured(project, 'path = "mine.jsonl"')
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_config(file).task.path == str(project / "mine.jsonl")


def older_run(tmp_path: Path) -> Path:
    """A run of an earlier commit: every path as it was given, in a project whose working directory it was begun in."""
    project = tmp_path / "project"
    run = project / "runs" / "old"
    for folder in (run, project / "models/small", project / "encoders/mini", tmp_path / "elsewhere" / "models"):
        folder.mkdir(parents=True, exist_ok=True)
    (project / "models/small/config.json").write_text("{}")
    (run / "config.toml").write_text(
        '[run]\nname = "old"\ndirectory = "runs"\n[model]\nname = "models/small"\n[memory]\nencoder = "encoders/mini"\n'
        '[task]\nkind = "file"\npath = "data/mine.jsonl"\n'
    )
    (run / "manifest.json").write_text(json.dumps({"model_path": str(project / "models/small")}))
    return run


def test_the_model_folder_of_an_older_run_is_found_from_another_directory(project: Path, tmp_path: Path) -> None:
    """The encoder's too, and the data, even where the working directory of now has a file of that name."""
    run = older_run(tmp_path)
    decoy = tmp_path / "elsewhere" / "data"
    decoy.mkdir()
    (decoy / "mine.jsonl").write_text("")
    place = [f"run.directory={run.parent}", "run.name=old"]  # as `memr resume` says it
    for config in (load_config(run / "config.toml"), load_config(run / "config.toml", place)):
        assert config.model.name == str(project / "models/small")
        assert config.memory.encoder == str(project / "encoders/mini")
        assert config.task.path == str(project / "data/mine.jsonl")
        assert model_before(run) == str(project / "models/small")


def test_a_model_folder_that_is_gone_is_told_with_where_it_was(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = older_run(tmp_path)
    shutil.rmtree(project / "models")
    monkeypatch.setattr("cluster.launch.model_store.resolve_model", _gone)
    config = load_config(run / "config.toml", [f"run.directory={run.parent}", "run.name=old"])
    with pytest.raises(
        LoadError, match=r"no such folder\. .*runs/old was begun with .*models/small: put it back there, or name"
    ):
        model_of(config)


def _gone(name: str) -> str:
    raise LoadError(f"model.name = '{name}': no such folder")
