"""A run of commit be586f9 or before goes on with the losses it had: its config.toml names every setting of that time.

tests/data/configs/memr_57c9e8c.toml is what such a run wrote; [learner] had the same keys up to be586f9.
"""

from pathlib import Path

import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.record.resume import begin_or_go_on, check_same_run
from cluster.record.run_view import read_run
from contracts.errors import ConfigError
from tests.harness import make_config

STORED = (Path(__file__).parents[2] / "data" / "configs" / "memr_57c9e8c.toml").read_text()


def begun(directory: Path, **changed: str) -> Path:
    """A run whose [learner] says `changed`."""
    text = STORED
    for key, value in changed.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
        text = text.replace(line, f"{key} = {value}")
    (directory / "config.toml").write_text(text)
    (directory / "manifest.json").write_text("{}")
    return directory / "config.toml"


def again(config: RunConfig, directory: Path) -> RunConfig:
    (directory / "again.toml").write_text(dump_config(config))
    return load_config(directory / "again.toml")


def test_gspo_keeps_the_range_and_the_mean_it_had(tmp_path: Path) -> None:
    learner = load_config(begun(tmp_path, loss='"gspo"')).learner
    assert (learner.clip_low, learner.clip_high, learner.loss_normalisation) == (0.2, 0.28, "tokens")


def test_a_kl_term_keeps_its_formula_and_says_so_from_now_on(tmp_path: Path) -> None:
    config = load_config(begun(tmp_path, kl_weight="0.04"))
    assert config.learner.kl_estimator == "k3"
    assert again(config, tmp_path) == config
    check_same_run(tmp_path, config, {}, override=False)
    new = config.model_copy(update={"learner": config.learner.model_copy(update={"kl_estimator": "weighted_k3"})})
    with pytest.raises(
        ConfigError, match=r"learner.kl_estimator: was 'k3', is 'weighted_k3' \(another default up to commit be586f9"
    ):
        check_same_run(tmp_path, new, {}, override=False)


def test_a_run_whose_loss_is_the_same_goes_on_with_the_users_own_file(tmp_path: Path) -> None:
    """The file names a few settings, the run all of them: none may differ by a default that became another."""
    stored = load_config(begun(tmp_path))
    own = type(stored.learner)(num_updates=stored.learner.num_updates)
    assert own == stored.learner


def test_a_users_file_gets_the_new_formula(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[learner]\nkl_weight = 0.04\nclip_low = 0.2\n")
    assert load_config(tmp_path / "own.toml").learner.kl_estimator == "weighted_k3"
    config = load_config(tmp_path / "own.toml")
    assert again(config, tmp_path) == config


def test_cispo_whose_cap_was_cut_in_silence_is_read_and_not_trained_on(tmp_path: Path) -> None:
    """What only looks at such a run reads its settings; what would go on with it names the commit that can."""
    file = begun(tmp_path, loss='"cispo"', clip_high="4.0")
    cut = load_config(file, [f"run.directory={tmp_path.parent}", f"run.name={tmp_path.name}"])
    assert (cut.learner.clip_high, cut.learner.importance_limit) == (4.0, 2.0)
    assert read_run(tmp_path).config == load_config(file)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "000000").write_bytes(b"frame")
    with pytest.raises(ConfigError, match=r"importance_cap = 2 would cut it before that.*be586f9"):
        begin_or_go_on(cut, CharTokenizer("abc"), {}, "model", override=True)
    begun(tmp_path, loss='"cispo"')
    kept = load_config(file, [f"run.directory={tmp_path.parent}", f"run.name={tmp_path.name}"])
    assert begin_or_go_on(kept, CharTokenizer("abc"), {}, "model", override=False) == []


def test_a_first_start_with_a_cut_cap_makes_no_run(tmp_path: Path) -> None:
    config = make_config(tmp_path, learner={"loss": "cispo", "clip_high": 4.0, "importance_cap": 2.0})
    with pytest.raises(ConfigError, match="importance_cap = 2 would cut it"):
        begin_or_go_on(config, CharTokenizer("abc"), {}, "model", override=False)
    assert not config.run_path.exists()
