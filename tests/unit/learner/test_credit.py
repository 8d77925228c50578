"""Which rollouts train, and with what reward."""

import math

import numpy as np
import pytest

from contracts.rollout import FinishReason
from contracts.verdict import Invalid
from learner.credit import credit
from tests.unit.learner.builders import group, rollout, scored, settings

DR = settings(advantage="dr_grpo")


def test_untrainable_rollouts_leave_the_group_and_its_mean() -> None:
    rollouts = [
        rollout([1], 1.0),
        rollout([2], 0.0),
        rollout([3], finish=FinishReason.ABORT),
        rollout([4], verdict=Invalid("verifier timed out")),
    ]
    credited = credit(scored(group(rollouts)), DR)
    assert credited.rollouts == tuple(rollouts[:2])
    np.testing.assert_allclose(credited.advantages_G, [0.5, -0.5])


def test_group_with_one_trainable_rollout_has_no_advantage() -> None:
    credited = credit(scored(group([rollout([1], 1.0), rollout([2], finish=FinishReason.ERROR)])), DR)
    assert credited.advantages_G.tolist() == [0.0]
    assert not credited.has_signal


def test_bonus_before_normalisation_is_part_of_the_reward() -> None:
    rollouts = [rollout([1], 1.0), rollout([2], 0.0)]
    credited = credit(scored(group(rollouts), bonus=[0.0, 0.5]), DR)
    np.testing.assert_allclose(credited.rewards_G, [1.0, 0.5])
    np.testing.assert_allclose(credited.advantages_G, [0.25, -0.25])


def test_bonus_after_normalisation_is_centred_and_added_to_the_advantage() -> None:
    rollouts = [rollout([1], 1.0), rollout([2], 0.0)]
    credited = credit(scored(group(rollouts), bonus=[0.2, 0.6], after=True), DR)
    np.testing.assert_allclose(credited.advantages_G, [0.5 - 0.2, -0.5 + 0.2], atol=1e-7)


def test_bonus_shared_by_all_after_normalisation_changes_nothing() -> None:
    rollouts = [rollout([1], 1.0), rollout([2], 0.0), rollout([3], 0.0)]
    plain = credit(scored(group(rollouts)), DR)
    shared = credit(scored(group(rollouts), bonus=[0.1] * 3, after=True), DR)
    assert shared.advantages_G.tolist() == plain.advantages_G.tolist()


def test_bonus_of_an_untrainable_rollout_is_not_anyone_elses() -> None:
    rollouts = [rollout([9], finish=FinishReason.TIMEOUT), rollout([1], 0.0), rollout([2], 0.0)]
    credited = credit(scored(group(rollouts), bonus=[9.0, 0.0, 1.0]), DR)
    np.testing.assert_allclose(credited.advantages_G, [-0.5, 0.5])


def test_cut_rollout_trains_is_masked_or_pays() -> None:
    given = scored(group([rollout([1, 2], 1.0), rollout([3, 4, 5], 1.0, finish=FinishReason.LENGTH)]))
    trains = credit(given, settings(overlong="train", advantage="dr_grpo"))
    assert trains.num_loss_tokens == 5
    assert trains.advantages_G.tolist() == [0.0, 0.0]
    masked = credit(given, settings(overlong="mask", advantage="dr_grpo"))
    assert (masked.num_loss_tokens, masked.in_loss_G.tolist()) == (2, [True, False])
    pays = credit(given, settings(overlong="penalty", overlong_penalty=0.4, advantage="dr_grpo"))
    np.testing.assert_allclose(pays.rewards_G, [1.0, 0.6])
    np.testing.assert_allclose(pays.advantages_G, [0.2, -0.2])


def test_broken_engine_logprob_is_refused_by_name() -> None:
    broken = group([rollout([1, 2], logprobs=[-1.0, math.nan], name="17/0/1")])
    with pytest.raises(ValueError, match=r"17/0/1 .*worker w.*not finite"):
        credit(scored(broken), DR)


def test_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        credit(scored(group([rollout([1])], prompt=[])), DR)
