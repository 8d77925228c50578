"""A group of one rollout has no baseline: refused where a run starts or goes on, with the reason."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.commands.check_task import run_task_check
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.record.resume import begin_or_go_on
from contracts.errors import ConfigError
from tests.harness import make_config


def group_of_one(tmp_path: Path) -> RunConfig:
    config = make_config(tmp_path)
    return config.model_copy(update={"actors": config.actors.model_copy(update={"rollouts_per_group": 1})})


def test_train_resume_and_check_task_refuse_it_and_nothing_is_written(tmp_path: Path) -> None:
    config = group_of_one(tmp_path)
    with pytest.raises(ConfigError, match=r"rollouts_per_group = 1: .* no baseline .* 2 or more"):
        begin_or_go_on(config, CharTokenizer("abc"), {"template_hash": "t"}, "model", override=False)
    with pytest.raises(ConfigError, match="no baseline"):
        run_task_check(Console(file=io.StringIO()), config)
    assert not config.run_path.exists()


def test_the_settings_of_a_run_that_failed_over_it_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(group_of_one(tmp_path)))
    assert load_config(path).actors.rollouts_per_group == 1
