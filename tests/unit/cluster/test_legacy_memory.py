"""A run of commit 57c9e8c goes on as it was: its stored configuration is read as what it did there.

tests/data/configs/memr_57c9e8c.toml is what that commit's `dump_config` wrote. tests/data/replays/memory_57c9e8c.json holds
what its memory and its learner made of `history()`, for each of its mixes.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.record.resume import check_same_run
from contracts.rollout import RolloutGroup
from learner.credit import credit
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from tests.fakes import make_group

DATA = Path(__file__).parents[2] / "data"
STORED = DATA / "configs" / "memr_57c9e8c.toml"
MIXES = {
    "capped": ("capped", "before_normalisation", "normalised"),
    "raw_sum": ("raw", "before_normalisation", "normalised"),
    "after_normalisation": ("raw", "after_normalisation", "normalised"),
}


def stored_config(mix: str, directory: Path) -> RunConfig:
    text = STORED.read_text().replace('mix = "capped"', f'mix = "{mix}"')
    file = directory / f"{mix}.toml"
    file.write_text(text)
    return load_config(file)


def history() -> list[RolloutGroup]:
    """Recurring questions, groups of all kinds: mixed, all wrong, all right."""
    random = np.random.default_rng(57)
    made = []
    for lease_id in range(40):
        share = (0.0, 0.3, 0.7, 1.0)[lease_id % 4]
        rewards = [float(random.random() < share) for _ in range(5)]
        group = make_group(lease_id, rewards=rewards, question=f"question {random.integers(8)}", version=lease_id // 5)
        rollouts = tuple(
            dataclasses.replace(one, text=f"answer {random.integers(50)} of {random.integers(9)}")
            for one in group.rollouts
        )
        made.append(dataclasses.replace(group, rollouts=rollouts))
    return made


@pytest.mark.parametrize("mix", MIXES)
def test_a_stored_configuration_is_read_as_what_it_did(mix: str, tmp_path: Path) -> None:
    config = stored_config(mix, tmp_path)
    assert (config.memory.mix, config.memory.stage, config.memory.no_signal) == MIXES[mix]
    assert (config.memory.where, config.memory.anneal_steps, config.memory.raw_decimals) == ("everywhere", None, 9)
    assert config.memory.reasoning_tags == ("<think>", "</think>")
    again = tmp_path / "again.toml"
    again.write_text(dump_config(config))
    assert load_config(again) == config


@pytest.mark.parametrize("mix", MIXES)
def test_its_bonuses_and_advantages_are_those_of_57c9e8c_to_the_last_bit(mix: str, tmp_path: Path) -> None:
    config = stored_config(mix, tmp_path)
    memory = EpisodicMemory(config.memory, HashEncoder(64), value_of_correct=config.value_of_correct)
    recorded: list[dict[str, Any]] = json.loads((DATA / "replays" / "memory_57c9e8c.json").read_text())[mix]
    assert any(max(line["bonus"]) > 0 for line in recorded)
    for scored, then in zip(memory.score(history()), recorded, strict=True):
        assert scored.bonus_G.tolist() == then["bonus"]
        assert scored.bonus_stage == then["stage"]
        assert credit(scored, config.learner, config.memory.bonus_rule).advantages_G.tolist() == then["advantages"]


def test_such_a_run_may_go_on_and_a_new_default_may_not_slip_in(tmp_path: Path) -> None:
    run = tmp_path / "scripted"
    run.mkdir()
    (run / "config.toml").write_text(STORED.read_text())
    (run / "manifest.json").write_text("{}")
    stored = load_config(run / "config.toml")
    check_same_run(run, stored, {}, override=False)
    today = stored.model_copy(update={"memory": type(stored.memory)(encoder="hash:64")})
    with pytest.raises(Exception, match="memory.mix: was 'capped', is 'scaled'"):
        check_same_run(run, today, {}, override=False)


def test_new_words_stand_beside_an_old_mix_where_somebody_writes_them() -> None:
    values = {"memory": {"profile": "memr", "mix": "capped", "no_signal": "centred"}}
    assert RunConfig.model_validate(values).memory.no_signal == "centred"
