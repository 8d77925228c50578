"""Mistakes in a configuration come back with file, section, line and the nearest known name."""

import json
from pathlib import Path

import pytest

from cluster.config.run_config import RunConfig, RunSettings, dump_config, load_config
from cluster.launch.plan import Plan, make_plan, plan_rows
from contracts.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.toml"))


def write(path: Path, text: str) -> Path:
    file = path / "c.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads_plans_and_survives_the_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert plan_rows(config, make_plan(config))
    copy = write(tmp_path, dump_config(config))
    assert load_config(copy) == config


def test_unknown_key_names_line_and_nearest_key(tmp_path: Path) -> None:
    file = write(tmp_path, "[learner]\nlora_r = 8\nlearning_rat = 1e-4\n")
    with pytest.raises(
        ConfigError, match=r"c\.toml:3: unknown key 'learning_rat' in \[learner\]; did you mean 'learning_rate'"
    ):
        load_config(file)


def test_unknown_section_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown section 'learnr'; did you mean 'learner'"):
        load_config(write(tmp_path, "[learnr]\nlora_r = 8\n"))


def test_unknown_key_of_a_nested_section_is_told_with_its_section(tmp_path: Path) -> None:
    text = '[model]\nname = "scripted"\n[actors]\nengine = "scripted"\n[actors.scripted]\naccuracy_per_versoin = 0.1\n'
    with pytest.raises(
        ConfigError, match=r":6: unknown key .* in \[actors.scripted\]; did you mean 'accuracy_per_version'"
    ):
        load_config(write(tmp_path, text))


def test_a_mistake_that_was_made_on_the_command_line_is_told_as_such(tmp_path: Path) -> None:
    file = write(tmp_path, "[learner]\nlora_r = 8\n")
    with pytest.raises(ConfigError, match=r"^--set learner.lora_rank=4: unknown key 'lora_rank' in \[learner\]"):
        load_config(file, ["learner.num_updates=5", "learner.lora_rank=4"])
    with pytest.raises(ConfigError, match=r"^--set learner.num_updates=-1: learner.num_updates: .* \(given: -1\)"):
        load_config(file, ["learner.num_updates=-1"])


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "[learner]\nlora_r = -1\n[cluster]\ngroups = 3\n"))
    assert len(str(caught.value).splitlines()) == 2


def test_values_of_the_wrong_type_are_not_bent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.toml:2: learner\.lora_r: .*valid integer"):
        load_config(write(tmp_path, '[learner]\nlora_r = "8"\n'))


def test_set_overrides_the_file_and_creates_sections(tmp_path: Path) -> None:
    file = write(tmp_path, "[learner]\nlora_r = 8\n")
    config = load_config(file, ["learner.lora_r=4", "run.name=other", "memory.profile=paper"])
    assert (config.learner.lora_r, config.run.name, config.memory.mix) == (4, "other", "raw")


@pytest.mark.parametrize("name", ["r", "t (copy)", "Größe 3", "a" * 100])
def test_a_run_may_have_any_name_that_is_one_folder(name: str) -> None:
    assert RunSettings(name=name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a\nb", "a" * 101])
def test_a_name_that_is_no_folder_or_looks_like_an_option_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        RunSettings(name=name)


def test_environment_variables_are_text_and_come_back_from_the_runs_own_configuration(tmp_path: Path) -> None:
    file = write(tmp_path, '[cluster.env]\nNCCL_SOCKET_IFNAME = "eth1"\n')
    config = load_config(file, ["cluster.env.NCCL_IB_DISABLE=1", "cluster.env.HF_HOME=/data/hub"])
    assert config.cluster.env == {"NCCL_SOCKET_IFNAME": "eth1", "NCCL_IB_DISABLE": "1", "HF_HOME": "/data/hub"}
    assert load_config(write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cluster.env.CUDA_VISIBLE_DEVICES=0", "Ray gives each process its GPUs by it"),
        ("cluster.env.RAY_AUTH_TOKEN=abc", "a secret does not belong in a configuration"),
        ("cluster.env.A-B=1", "letters, digits and _"),
        ("cluster.env.FLAG=true", "valid string"),
        ("cluster.env=5", "valid dictionary"),
    ],
)
def test_variables_that_would_break_the_run_are_refused(override: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(write(tmp_path, ""), [override])


@pytest.mark.parametrize("override", ["learner", "learner=3", "=3", "learner.lora_r.x=1"])
def test_malformed_set_says_what_is_expected(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(write(tmp_path, "[learner]\nlora_r = 8\n"), [override])


def test_missing_file_and_broken_toml_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(write(tmp_path, "[learner\n"))


def test_scripted_engine_and_scripted_model_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Set both to 'scripted' or neither"):
        load_config(write(tmp_path, '[model]\nname = "scripted"\n'))


def test_slots_are_one_more_than_the_lag_times_the_batch(tmp_path: Path) -> None:
    file = write(tmp_path, "[learner]\nmax_policy_lag = 2\n[cluster]\ngroups_per_batch = 8\n")
    assert load_config(file).slots == 24


@pytest.mark.parametrize(("lag", "kept"), [(0, 4), (2, 4), (3, 5), (8, 10)])
def test_an_engine_serves_the_versions_that_the_lag_allows_and_an_older_file_may_say_so(
    tmp_path: Path, lag: int, kept: int
) -> None:
    file = write(tmp_path, f"[learner]\nmax_policy_lag = {lag}\n[actors]\nadapters_kept = {kept}\n")
    assert load_config(file).adapters_kept == kept
    file.write_text(file.read_text().replace(f"adapters_kept = {kept}", "adapters_kept = 3"))
    told = rf"actors.adapters_kept = 3: no setting any more, it is {kept} here. It follows from learner.max_policy_lag = {lag}"
    with pytest.raises(ConfigError, match=told):
        load_config(file)


@pytest.mark.parametrize(
    "name", ["../../etc", "..", ".", "a/b", "/etc", "a\\b", "~", "-rf", " t", "", "a\x1b[31m", "a\nb", 201 * "a"]
)
def test_run_name_cannot_leave_its_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name"):
        load_config(write(tmp_path, f"[run]\nname = {json.dumps(name)}\n"))


@pytest.mark.parametrize("name", ["t (copy)", "Kopie von t", "实验-1", "a" * 64 + " (another copy)", "it's", 't "2"'])
def test_what_a_file_manager_calls_a_copy_is_a_name(tmp_path: Path, name: str) -> None:
    config = load_config(write(tmp_path, f"[run]\nname = {json.dumps(name)}\n"))
    assert config.run.name == name
    assert load_config(write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("rewards", "value"),
    [
        ([{"name": "correctness"}, {"name": "format", "weight": 3.0}], 1.0),
        ([{"name": "format"}, {"name": "correctness", "weight": 2.0}], 2.0),
        ([{"name": "cosine_length", "weight": 4.0}], 1.0),
        ([{"name": "my.module:reward", "weight": 5.0}], 1.0),
        ([{"name": "correctness", "weight": 0.0}, {"name": "format"}], 1.0),
    ],
)
def test_what_a_right_answer_earns_is_the_weight_of_correctness(rewards: list[dict[str, object]], value: float) -> None:
    assert RunConfig.model_validate({"task": {"rewards": rewards}}).value_of_correct == value


def test_a_right_answer_earns_2_in_tina() -> None:
    assert load_config(Path("configs/tina_1.5b_2gpu.toml")).value_of_correct == 2.0


def test_the_plan_counts_the_threads_of_every_worker(tmp_path: Path) -> None:
    """The sum is what the placement's note compares with the machine's cores."""
    rows = dict(plan_rows(*_planned(tmp_path, ["actors.num_workers=3", "learner.torch_threads=4"])))
    assert rows["threads"] == "worker 3 x 2, learner 4, memory 1"
    pools = 'actors.pools=[{name="a", num_workers=2, torch_threads=3}, {name="b", num_workers=1}]'
    assert dict(plan_rows(*_planned(tmp_path, [pools])))["threads"] == "a 2 x 3, b 2, learner 2, memory 1"


def _planned(tmp_path: Path, overrides: list[str]) -> tuple[RunConfig, Plan]:
    config = load_config(write(tmp_path, ""), overrides)
    return config, make_plan(config)
