"""What the report says of memory, counted by hand."""

import numpy as np
import pytest

from contracts.bonus_rule import BonusRule, NoSignal, Where
from contracts.rollout import BonusStage, ScoredGroup
from learner.bonus_effect import BonusEffect, bonus_effect
from learner.credit import credit_all
from learner.scripted_learner import ScriptedLearner
from learner.step_report import UpdateCost, UpdateNorms, make_report
from learner.update_record import UpdateRecord
from tests.unit.learner.builders import group, rollout, scored, settings, tiny_learner

RULE = BonusRule(no_signal=NoSignal.CENTRED)


def effect(batch: list[ScoredGroup], rule: BonusRule = RULE, advantage: str = "dr_grpo") -> BonusEffect:
    return bonus_effect(batch, credit_all(batch, settings(advantage=advantage), rule))


def of(rewards: list[float], exploit: list[float], bonus: list[float]) -> ScoredGroup:
    rollouts = [rollout([i + 1], reward) for i, reward in enumerate(rewards)]
    given = (np.array(exploit, np.float32), np.zeros(len(rewards), np.float32), np.array(bonus, np.float32))
    return ScoredGroup(group(rollouts), *given, BonusStage.BEFORE_NORMALISATION, memory_version=3)


def test_a_mixed_group_and_one_without_signal_by_hand() -> None:
    """Mixed: a = (.5, -.5), bonus (0, .4) makes them (.3, -.3): d = (-.2, .2). Wrong: a = 0, d = (-.1, .1)."""
    found = effect([of([1.0, 0.0], [0.0, 1.0], [0.0, 0.4]), of([0.0, 0.0], [0.0, 0.5], [0.0, 0.2])])
    assert (found.bonus_groups, found.bonus_signal_groups, found.bonus_changed_share) == (2, 1, 1.0)
    assert found.exploit_std == pytest.approx((0.5 + 0.25) / 2)
    assert found.explore_std == 0.0
    assert found.bonus_std == pytest.approx((0.2 + 0.1) / 2)
    assert found.bonus_signal_share == pytest.approx(0.08 / (0.08 + 0.5))
    assert found.bonus_advantage_share == pytest.approx(0.10 / (0.10 + 0.5))


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo"])
@pytest.mark.parametrize("shared", [0.5, 0.1, 1 / 3])
def test_a_bonus_that_all_rollouts_share_is_heard_saying_nothing(advantage: str, shared: float) -> None:
    """At 57c9e8c it was a third of all reward, "intrinsic share 33 %"."""
    batch = [of([1.0, 0.0, 0.0], [0.2, 0.9, 0.4], [shared] * 3), of([0.0] * 3, [0.2, 0.9, 0.4], [shared] * 3)]
    found = effect(batch, advantage=advantage)
    assert (found.bonus_groups, found.bonus_std, found.bonus_changed_share) == (2, 0.0, 0.0)
    assert found.bonus_advantage_share < 1e-20
    assert found.exploit_std > 0.2


def test_groups_where_memory_may_not_act_are_not_counted() -> None:
    batch = [of([1.0, 0.0], [0.0, 1.0], [0.0, 0.4]), of([0.0, 0.0], [0.0, 1.0], [0.0, 0.4])]
    late = ScoredGroup.without_bonus(group([rollout([1]), rollout([2], 1.0)]), late=True)
    assert effect([*batch, late]).bonus_groups == 2
    no_signal = effect([*batch, late], BonusRule(where=Where.NO_TASK_SIGNAL, no_signal=NoSignal.CENTRED))
    assert (no_signal.bonus_groups, no_signal.bonus_signal_groups, no_signal.bonus_advantage_share) == (1, 0, 1.0)
    assert effect([late]) == BonusEffect(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_step_report_carries_it() -> None:
    batch = [scored(group([rollout([4, 5], 1.0), rollout([6, 7], 0.0)]), [0.0, 0.4])]
    report = tiny_learner(advantage="dr_grpo").step(batch)
    assert (report.bonus_groups, report.bonus_signal_groups, report.bonus_changed_share) == (1, 1, 1.0)
    assert report.bonus_signal_share == report.bonus_advantage_share == pytest.approx(0.08 / 0.58)
    assert report.bonus_std == pytest.approx(0.2)


@pytest.mark.parametrize("where", list(Where))
def test_the_bonus_that_is_told_is_the_one_that_was_paid(where: Where) -> None:
    batch = [of([1.0, 0.0], [0.0, 1.0], [0.25, 0.5]), of([0.0, 0.0], [0.0, 1.0], [0.25, 0.5])]
    rule, norms = BonusRule(where=where), UpdateNorms(0.0, 0.0, 0.0)
    report = ScriptedLearner(settings(), bonus_rule=rule).step(batch)
    paid = {Where.EVERYWHERE: 1.5, Where.NO_TASK_SIGNAL: 0.75, Where.RIGHT_ANSWERS: 0.25, Where.WRONG_ANSWERS: 1.25}
    assert report.bonus == pytest.approx(paid[where] / 4)
    assert report.reward == pytest.approx(report.task_reward + report.bonus)
    real = make_report(batch, credit_all(batch, settings(), rule), UpdateRecord(), norms, UpdateCost(0.0, 0.0, 0), 1)
    assert real.bonus == pytest.approx(report.bonus)
    assert real.reward == pytest.approx(report.reward)
