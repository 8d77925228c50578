"""Advantages, losses and schedules of the user's own: `FILE.py:name` in `[learner]`."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.config.run_config import load_config
from contracts.errors import ConfigError
from learner.advantages import grpo
from learner.config import LearnerSettings
from learner.losses import PolicyTokens, RatioLimits, clipped, loss_of
from learner.methods import advantage_of, refuse_missing, schedule_of
from tests.unit.learner.builders import group, rollout, scored, tiny_learner

CODE = """
    import numpy as np
    from learner.losses import TokenWeights, clipped

    def max_normalised(rewards_G):
        return (rewards_G - rewards_G.mean()) / max(np.abs(rewards_G - rewards_G.mean()).max(), 1e-9)

    def halved(tokens, limits):
        weights = clipped(tokens, limits)
        return TokenWeights(weights.weight_N / 2, weights.clipped_N, weights.truncated_N)

    def steps(progress):
        return 1.0 if progress < 0.5 else 0.1

    def one(rewards_G):
        return rewards_G[:1]

    def raises(rewards_G):
        raise KeyError("no")

    def nothing(tokens, limits):
        return None

    def rises(progress):
        return 1 + progress
"""
REWARDS = np.array([0.0, 1.0, 3.0])
TOKENS = PolicyTokens(torch.zeros(2), torch.ones(2), torch.tensor([0, 1]), 2)
LIMITS = RatioLimits(0.2, 0.28)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(CODE))
    return str(file)


def test_methods_of_the_users_own_are_used(mine: str) -> None:
    np.testing.assert_allclose(advantage_of(f"{mine}:max_normalised")(REWARDS), [-0.8, -0.2, 1.0])
    ours, theirs = clipped(TOKENS, LIMITS), loss_of(f"{mine}:halved")(TOKENS, LIMITS)
    assert torch.equal(theirs.weight_N * 2, ours.weight_N)
    assert [schedule_of(f"{mine}:steps")(progress) for progress in (0.0, 0.4, 0.9)] == [1.0, 1.0, 0.1]
    assert advantage_of("grpo") is grpo


def test_an_update_is_made_by_them(mine: str) -> None:
    batch = [scored(group([rollout([4, 5], 1.0), rollout([6, 7], 0.0)]))]
    theirs: dict[str, Any] = {
        "advantage": f"{mine}:max_normalised",
        "loss": f"{mine}:halved",
        "schedule": f"{mine}:steps",
    }
    report = tiny_learner(**theirs).step(batch)
    assert report.advantage_abs_mean == pytest.approx(1.0)
    assert report.grad_norm == pytest.approx(tiny_learner(advantage=theirs["advantage"]).step(batch).grad_norm / 2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("one", r"returned array\(\[0.\]\) for 3 rewards; it must return as many finite numbers"),
        ("raises", r"mine.py:\d+ \(KeyError\)"),
    ],
)
def test_an_advantage_that_returns_nonsense_ends_the_run_with_its_line(mine: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        advantage_of(f"{mine}:{name}")(REWARDS)


def test_a_loss_and_a_schedule_that_return_nonsense_are_told(mine: str) -> None:
    with pytest.raises(ConfigError, match=r"returned NoneType; it must return learner.losses.TokenWeights"):
        loss_of(f"{mine}:nothing")(TOKENS, LIMITS)
    with pytest.raises(ConfigError, match=r"returned 1.5 at progress 0.500; it must be in \(0, 1\]"):
        schedule_of(f"{mine}:rises")(0.5)


def test_a_misspelt_method_is_refused_before_anything_is_loaded(mine: str) -> None:
    with pytest.raises(ConfigError, match=r"has no 'halvd'. Did you mean 'halved'\?"):
        refuse_missing(LearnerSettings(loss=f"{mine}:halvd"))


def test_a_path_is_relative_to_the_configuration(mine: str) -> None:
    file = Path(mine).with_name("c.toml")
    file.write_text('[learner]\nadvantage = "mine.py:max_normalised"\n')
    assert load_config(file).learner.advantage == f"{mine}:max_normalised"
    file.write_text('[learner]\nadvantage = "gpro"\n')
    with pytest.raises(ConfigError, match=r"learner.advantage: .*'grpo'.*\(given: 'gpro'\)"):
        load_config(file)
