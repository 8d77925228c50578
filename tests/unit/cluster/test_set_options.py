"""What a person types behind --set is read as it was meant, or refused with what is missing."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cluster.config.run_config import RunConfig, load_config
from cluster.config.set_options import lay_over, overridden
from cluster.config.setting_names import FIELDS_WORDS, leaf_settings
from cluster.launch.nodes import resources_of
from cluster.launch.ray_address import held_back_stderr, refuse_unreachable, why_not_joined
from contracts.errors import ConfigError, RunStopped
from memory_service.config import MemorySettings

SETTINGS = dict(leaf_settings(RunConfig))
TEXTS = [name for name, field in SETTINGS.items() if field.annotation in (str, str | None)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text('[task]\nkind = "file"\npath = "rows.jsonl"\n')
    return path


def read(*overrides: str) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    lay_over(raw, RunConfig, overrides)
    return raw


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("text", ["42", "0042", "4.20", "true", "2026-11-27", "1e5", "[x]", "a b", "nan"])
def test_a_text_needs_no_quotes_whatever_it_looks_like(name: str, text: str) -> None:
    assert len(TEXTS) > 15
    *sections, last = name.split(".")
    found: Any = read(f"{name}={text}")
    for section in sections:
        found = found[section]
    assert found[last] == text
    assert read(f'{name}="{text}"') == read(f"{name}={text}"), "quotes that arrive are quotes"


def test_a_run_may_be_called_42(file: Path) -> None:
    assert load_config(file, ["run.name=42"]).run.name == "42"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ('notify.events=["start", "stop"', "a ] is missing"),
        ('task.rewards=[{name="format"]', "a } is missing"),
        ('task.rewards=[{name="format"}', "a ] is missing"),
        ("notify.events=start]", "Input should be a list"),
        ("learner.lora_targets=[q_proj,v_proj]", r"texts in it need quotes.*--set 'learner\.lora_targets="),
        ("task.generator_params={a: 1}", "this is no table: write"),
        ('model.name="m', 'the closing " is missing'),
        ("model.name='m", "the closing ' is missing"),
        ("run.name==x", r"two = signs; write run\.name=x"),
        ("task.rewards.0.weight=2", r"task\.rewards is a list, which is given whole: --set 'task\.rewards=\[\.\.\]'"),
        ("memory.encoder=hash", r"2 to 65536 dimensions, for example hash:64"),
        ("nokey", r"the value is missing; expected section\.key=value"),
        ("run.name", r"the value is missing; expected section\.key=value"),
        ("=3", r"the name of the setting is missing"),
        ("name=x", r"the section is missing; did you mean 'run\.name' or 'model\.name'"),
        ("run=x", r"'run' is a section, with the keys name, directory, seed"),
        ("run.nme=x", r"^--set run\.nme=x: unknown key 'nme' in \[run\]; did you mean 'name'"),
        ("rn.name=x", r"^--set rn\.name=x: unknown section 'rn'; did you mean 'run'"),
        ("learner.lr=1", r"did you mean 'learning_rate'"),
        ("learner.batch_size=1", r"did you mean 'cluster\.groups_per_batch'"),
        ("actors.num_generations=1", r"did you mean 'rollouts_per_group'"),
        ("learner.num_workers=2", r"did you mean 'actors\.num_workers'"),
        ("learner.temprature=1.0", r"did you mean 'actors\.temperature'"),
        ("learner.learning_rate=5", r"less than or equal to 1 \(given: 5\)\. learner\.learning_rate is: .*LoRA wants"),
        ("run.name=a/b", r"holds a slash: it is one folder below run\.directory"),
        ("memory.cap_share=1.5", r"with --set memory\.cap_share=1\.5: memory: cap_share is 1\.5"),
    ],
)
def test_what_is_wrong_with_an_override_is_said_with_the_way_out(override: str, told: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(file, [override])


@pytest.mark.parametrize(
    "twice",
    [
        ("run.seed=1", "run.seed=2"),
        ("run.seed=1", " run.seed =3"),
    ],
)
def test_of_one_key_given_twice_the_later_acts_and_the_first_is_said_to_be_without_effect(
    twice: tuple[str, str], file: Path
) -> None:
    [told] = overridden(twice)
    assert told == f"--set {twice[0]} does not act: --set {twice[1]} comes after it"
    assert load_config(file, twice) == load_config(file, twice[1:])
    assert overridden(["run.seed=1", "run.name=x", "run.seeds=2"]) == []


def test_what_other_trainers_say_points_at_settings_that_there_are() -> None:
    assert set(FIELDS_WORDS.values()) <= {*SETTINGS, "task.rewards"}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("text", ["", "  "])
def test_no_text_is_empty_unless_that_means_something(name: str, text: str, file: Path) -> None:
    if name == "task.system_prompt":
        assert load_config(file, [f"{name}={text}"]).task.system_prompt == text
        return
    with pytest.raises(ConfigError, match=r"an empty text|should have at least"):
        load_config(file, [f"{name}={text}"])


@pytest.mark.parametrize(
    "text", ["hash:abc", "hash:", "hash:0", "hash:1", "hash:-4", "hash:4.0", "hash:²", "hash:65537"]
)
def test_a_hash_encoder_without_a_dimension_is_refused_when_it_is_read(text: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory\.encoder: .*2 to 65536 dimensions, for example hash:64"):
        load_config(file, [f"memory.encoder={text}"])
    assert MemorySettings(encoder="hash:64").encoder == "hash:64"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("task.scorer=score", r"'score' names no function; write FILE\.py:function"),
        ("task.scorer=score.py:", r"names no function"),
        ('notify.events=["finish"]', r"finish: no such event is sent; there are start, alarm, restart, stop"),
        ('learner.lora_targets=["q_proj", ""]', "an empty text"),
    ],
)
def test_a_text_without_the_form_that_it_needs_is_refused_when_it_is_read(override: str, told: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(file, [override])


@pytest.mark.parametrize("address", ["", "foo", "head:", "head:0", "head:99999", "head:6379/x", "a b:1"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="write auto, or HOST:PORT"):
        refuse_unreachable(address)


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refuse_unreachable(f"127.0.0.1:{port}")
    with pytest.raises(RunStopped, match="nothing answers there"):
        refuse_unreachable(f"127.0.0.1:{port}")
    refuse_unreachable("auto")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[run]\nname = 42",
            r":2: run\.name: .*a text, in quotes where it stands in a file \(given: 42\)\. run\.name is: folder",
        ),
        (
            '[learner]\nlora_targets = "q"',
            r"c\.toml:2: learner\.lora_targets: Input should be 'all_linear', or .*a list",
        ),
        (
            "[memory]\nraw_decimals = 20",
            r"^\S+:2: memory\.raw_decimals: .*less than or equal to 15, or .*'off' \(given: 20\)",
        ),
        (
            '[task]\nrewards = ["format"]',
            r"^\S+:2: task\.rewards\.0: .*a table with the keys name, weight \(given: 'format'\)$",
        ),
        ('[[task.rewards]]\nname = "corect"', r"^\S+:2: task\.rewards\.0\.name: unknown reward part[^\n]*$"),
        ('model = "x"', r"^\S+:1: model: Input should be a table with the keys name \(given: 'x'\)$"),
        ('[actors.vllm]\nmax_num_seqs = "x"\n', r":2: actors\.vllm\.max_num_seqs: .*valid integer"),
        (
            '[learner]\nloss = "cisp"',
            r"'gspo', or your own as FILE\.py:name \(given: 'cisp'\); did you mean 'cispo'\? learner\.loss is: clipped per token",
        ),
        (
            '[task]\nkind = "mine.py"',
            r"known: arithmetic, reasoning_gym, file\. A task of your own is named FILE\.py:Class",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_with_its_line(text: str, told: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_config(file)


def test_a_folder_in_the_place_of_a_configuration_is_told_for_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder; give a TOML file"):
        load_config(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path} is a run: memr resume {tmp_path} goes on with it"):
        load_config(tmp_path)


def test_a_plan_is_for_nodes_that_are_there_or_for_others() -> None:
    with pytest.raises(ConfigError, match="--address and --nodes: .* give one of the two"):
        resources_of("auto", "2x8")


def test_what_ray_writes_while_it_tries_stays_off_the_terminal_and_names_the_token(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with held_back_stderr() as told:
        os.write(2, b"[W] Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing\n")
        assert "does not take our token: give its own by RAY_AUTH_TOKEN" in why_not_joined(ValueError("no"), told())
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    assert why_not_joined(ValueError("no"), "").startswith("no. Is its head running")
