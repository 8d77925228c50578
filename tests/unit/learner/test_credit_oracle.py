"""Credit against a slow re-telling of docs/algorithms.md: plain numbers, one rollout at a time, no arrays."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from contracts.bonus_rule import BonusRule, NoSignal, Where
from contracts.rollout import FinishReason
from contracts.verdict import Scored
from learner.credit import credit
from tests.unit.learner.builders import group, rollout, scored, settings

PENALTY = 0.5


@dataclass(frozen=True)
class Sampled:
    """One rollout: numbers with exact sums, so that equal rewards are equal in any order of summation."""

    task_reward: float
    right: bool
    cut: bool
    bonus: float


def advantages(group: list[Sampled], rule: BonusRule, *, after: bool, estimator: str, penalty: bool) -> list[float]:
    rewards = [one.task_reward - (PENALTY if penalty and one.cut else 0.0) for one in group]
    signal = len(set(rewards)) > 1
    paid = [is_paid(one, signal, rule.where) for one in group]
    bonuses = [one.bonus if paid[i] else 0.0 for i, one in enumerate(group)]
    alone = not signal and rule.no_signal is NoSignal.CENTRED
    if not after:
        if alone:
            return [rule.no_signal_weight * (bonus - mean(bonuses)) for bonus in bonuses]
        return estimated([reward + bonus for reward, bonus in zip(rewards, bonuses, strict=True)], estimator)
    centre = mean([bonus for bonus, counts in zip(bonuses, paid, strict=True) if counts])
    moved = [bonus - centre if counts else 0.0 for bonus, counts in zip(bonuses, paid, strict=True)]
    if alone:
        return [rule.no_signal_weight * one for one in moved]
    of_task = estimated(rewards, estimator)
    unit = 1.0
    if rule.keeps_order and signal:
        best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
        unit = min(1.0, (of_task[best] - of_task[worst]) / (rewards[best] - rewards[worst]))
    return [task + unit * one for task, one in zip(of_task, moved, strict=True)]


def is_paid(one: Sampled, signal: bool, where: Where) -> bool:
    return {
        Where.EVERYWHERE: True,
        Where.NO_TASK_SIGNAL: not signal,
        Where.RIGHT_ANSWERS: one.right,
        Where.WRONG_ANSWERS: not one.right,
    }[where]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def estimated(rewards: list[float], estimator: str) -> list[float]:
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    centre, others = mean(rewards), len(rewards) - 1
    if estimator == "grpo":
        spread = math.sqrt(sum((reward - centre) ** 2 for reward in rewards) / others) + 1e-4
        return [(reward - centre) / spread for reward in rewards]
    if estimator == "dr_grpo":
        return [reward - centre for reward in rewards]
    return [reward - (sum(rewards) - reward) / others for reward in rewards]


SAMPLED = st.builds(
    Sampled,
    task_reward=st.sampled_from([0.0, 0.25, 1.0, 8.0]),
    right=st.booleans(),
    cut=st.booleans(),
    bonus=st.integers(0, 32).map(lambda n: n / 64),
)
RULES = st.builds(
    BonusRule,
    where=st.sampled_from(list(Where)),
    no_signal=st.sampled_from(list(NoSignal)),
    no_signal_weight=st.sampled_from([0.0, 1.0, 3.0]),
    keeps_order=st.booleans(),
)
CHOICES: dict[str, Any] = {
    "after": st.booleans(),
    "estimator": st.sampled_from(["grpo", "dr_grpo", "rloo", "loop"]),
    "penalty": st.booleans(),
}


def credited(group_: list[Sampled], rule: BonusRule, *, after: bool, estimator: Any, penalty: bool) -> list[float]:
    rollouts = [
        rollout(
            [i + 1],
            finish=FinishReason.LENGTH if one.cut else FinishReason.STOP,
            verdict=Scored(one.task_reward, one.right, {}),
        )
        for i, one in enumerate(group_)
    ]
    given_settings = settings(advantage=estimator, overlong="penalty" if penalty else "train", overlong_penalty=PENALTY)
    item = scored(group(rollouts), [one.bonus for one in group_], after=after)
    found: list[float] = credit(item, given_settings, rule).advantages_G.tolist()
    return found


@hypothesis_settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(SAMPLED, min_size=1, max_size=6), RULES, st.fixed_dictionaries(CHOICES))
def test_credit_agrees_with_the_oracle(group_: list[Sampled], rule: BonusRule, choices: dict[str, Any]) -> None:
    assert credited(group_, rule, **choices) == pytest.approx(advantages(group_, rule, **choices), abs=1e-9)


MIXED = [Sampled(8.0, True, False, 0.25), Sampled(0.0, False, True, 0.5), Sampled(0.0, False, False, 0.125)]
ALIKE = [replace(one, task_reward=0.0) for one in MIXED]


@pytest.mark.parametrize(
    ("group_", "change"),
    [
        (ALIKE, {"where": Where.RIGHT_ANSWERS}),
        (MIXED, {"where": Where.NO_TASK_SIGNAL}),
        (MIXED, {"where": Where.WRONG_ANSWERS}),
        (ALIKE, {"no_signal": NoSignal.CENTRED}),
        (ALIKE, {"no_signal": NoSignal.CENTRED, "no_signal_weight": 2.0}),
        (MIXED, {"keeps_order": True}),
    ],
)
def test_an_oracle_with_another_rule_is_told_apart(group_: list[Sampled], change: dict[str, Any]) -> None:
    choices: dict[str, Any] = {"after": "keeps_order" in change, "estimator": "grpo", "penalty": False}
    right, wrong = BonusRule(), replace(BonusRule(), **change)
    assert credited(group_, right, **choices) != pytest.approx(advantages(group_, wrong, **choices), abs=1e-3)
