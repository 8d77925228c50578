"""Where a bonus is paid, what it becomes without a task signal, and that a silent memory changes no byte."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from contracts.bonus_rule import BonusRule, NoSignal, Where
from contracts.rollout import FinishReason, ScoredGroup
from learner.credit import CreditedGroup, credit
from learner.learner import Learner
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from tests.unit.learner.builders import MAX_NEW_TOKENS, group, random_batch, rollout, scored, settings, tiny_policy

CENTRED = BonusRule(no_signal=NoSignal.CENTRED)
ESTIMATORS = ["grpo", "dr_grpo", "rloo", "loop"]


def credited(
    rewards: Sequence[float],
    bonus: Sequence[float],
    rule: BonusRule,
    *,
    after: bool = False,
    advantage: str = "dr_grpo",
) -> CreditedGroup:
    item = scored(group([rollout([i + 1], reward) for i, reward in enumerate(rewards)]), bonus, after=after)
    return credit(item, settings(advantage=advantage), rule)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("after", [False, True])
def test_a_tiny_bonus_stays_tiny_where_the_task_gives_no_signal(estimator: str, after: bool) -> None:
    """A range of 0.006 in eight wrong answers was |A| = 2.4 with GRPO, more than any right answer of a mixed group."""
    bonus = [0.25, 0.25, 0.25, 0.256, 0.25, 0.25, 0.25, 0.25]
    found = credited([0.0] * 8, bonus, CENTRED, advantage=estimator, after=after)
    np.testing.assert_allclose(found.advantages_G, np.array(bonus) - np.mean(bonus), atol=1e-7)
    assert np.abs(found.advantages_G).max() < 0.006
    assert not found.task_advantages_G.any()


def test_the_weight_of_a_group_without_signal_is_a_setting() -> None:
    rule = BonusRule(no_signal=NoSignal.CENTRED, no_signal_weight=3.0)
    np.testing.assert_allclose(credited([1.0, 1.0], [0.0, 0.2], rule, advantage="grpo").advantages_G, [-0.3, 0.3])
    silent = BonusRule(no_signal=NoSignal.CENTRED, no_signal_weight=0.0)
    assert not credited([1.0, 1.0], [0.0, 0.2], silent, advantage="grpo").has_signal


@pytest.mark.parametrize("after", [False, True])
def test_where_the_task_gives_a_signal_the_rule_for_groups_without_one_says_nothing(after: bool) -> None:
    mixed, bonus = [1.0, 0.0, 0.0], [0.1, 0.2, 0.4]
    centred, normalised = (credited(mixed, bonus, rule, after=after).advantages_G for rule in (CENTRED, BonusRule()))
    np.testing.assert_array_equal(centred, normalised)
    assert centred[0] > 0 > centred[1]


def test_normalised_is_what_57c9e8c_did() -> None:
    found = credited([0.0, 0.0], [0.0, 0.006], BonusRule(), advantage="grpo")
    np.testing.assert_allclose(found.advantages_G, [-0.69, 0.69], atol=0.01)


def test_whether_the_task_gives_a_signal_is_decided_after_the_overlong_penalty() -> None:
    """Both are wrong, one was cut off: with the penalty their rewards differ, so no_task_signal pays nothing."""
    item = scored(group([rollout([1], 0.0), rollout([2, 3], 0.0, finish=FinishReason.LENGTH)]), [0.0, 0.4])
    rule = BonusRule(where=Where.NO_TASK_SIGNAL, no_signal=NoSignal.CENTRED)
    plain = credit(item, settings(advantage="dr_grpo"), rule)
    np.testing.assert_allclose(plain.advantages_G, [-0.2, 0.2], atol=1e-7)
    pays = credit(item, settings(advantage="dr_grpo", overlong="penalty", overlong_penalty=0.5), rule)
    np.testing.assert_allclose(pays.advantages_G, [0.25, -0.25])
    assert not pays.bonus_G.any()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where.EVERYWHERE, [1.1, 1.3, 0.2, 0.4]),
        (Where.NO_TASK_SIGNAL, [1.0, 1.0, 0.0, 0.0]),
        (Where.RIGHT_ANSWERS, [1.1, 1.3, 0.0, 0.0]),
        (Where.WRONG_ANSWERS, [1.0, 1.0, 0.2, 0.4]),
    ],
)
def test_the_bonus_is_paid_where_the_rule_says(where: Where, expected: list[float]) -> None:
    found = credited([1.0, 1.0, 0.0, 0.0], [0.1, 0.3, 0.2, 0.4], BonusRule(where=where))
    np.testing.assert_allclose(found.rewards_G, expected, atol=1e-7)
    np.testing.assert_allclose(found.advantages_G, np.array(expected) - np.mean(expected), atol=1e-7)


def test_after_normalisation_those_that_are_paid_are_compared_with_one_another() -> None:
    found = credited([1.0, 1.0, 0.0], [0.1, 0.3, 0.9], BonusRule(where=Where.RIGHT_ANSWERS), after=True)
    np.testing.assert_allclose(found.advantages_G - found.task_advantages_G, [-0.1, 0.1, 0.0], atol=1e-7)


def test_after_normalisation_too_a_scaled_bonus_is_worth_less_than_a_right_answer() -> None:
    """Rewards of 8 and 0: a unit of reward is worth 1 / 5.66 of an advantage, a right answer 1.41; the bonus of 4, half of
    a right answer's 8, becomes 0.71."""
    rule = BonusRule(keeps_order=True)
    found = credited([8.0, 0.0], [0.0, 4.0], rule, after=True, advantage="grpo")
    np.testing.assert_allclose(found.advantages_G, [0.354, -0.354], atol=0.001)
    unbounded = credited([8.0, 0.0], [0.0, 4.0], BonusRule(), after=True, advantage="grpo")
    assert unbounded.advantages_G[0] < unbounded.advantages_G[1]


def test_where_memory_may_act_is_counted_apart_from_where_it_acts() -> None:
    mixed, right = [1.0, 0.0], [1.0, 1.0]
    assert credited(mixed, [0.2, 0.2], BonusRule()).bonus_may_act
    assert not credited(right, [0.0, 0.0], BonusRule(all_correct=False)).bonus_may_act
    assert not credited(mixed, [0.2, 0.1], BonusRule(where=Where.NO_TASK_SIGNAL)).bonus_may_act
    assert not credited(mixed, [0.2, 0.1], BonusRule(where=Where.RIGHT_ANSWERS), after=True).bonus_may_act
    assert not credited(mixed, [0.2, 0.1], BonusRule(from_version=1)).bonus_may_act
    assert not credited(mixed, [0.0, 0.0], BonusRule(until_version=0.0)).bonus_may_act
    assert not credited([0.0], [0.2], BonusRule()).bonus_may_act
    assert not credit(ScoredGroup.without_bonus(group([rollout([1]), rollout([2])])), settings()).bonus_may_act


# --- a silent memory ------------------------------------------------------------------------------------------------


def sampled_batch(version: int) -> list[ScoredGroup]:
    """Groups with names, texts and some equal rewards, as memory and learner get them."""
    batch = []
    for i, item in enumerate(random_batch(7 + version, num_groups=4, version=version)):
        rollouts = tuple(
            dataclasses.replace(one, rollout_id=f"{version}{i}/0/{j}", text=f"text {version} {i} {j * j}")
            for j, one in enumerate(item.group.rollouts)
        )
        fresh = dataclasses.replace(item.group, lease_id=10 * version + i, question=f"question {i}", rollouts=rollouts)
        batch.append(ScoredGroup.without_bonus(fresh))
    alike = [rollout([j + 1, j + 2], 0.0, name=f"{version}9/0/{j}") for j in range(4)]
    rollouts = tuple(dataclasses.replace(one, text=f"wrong {version} {j}") for j, one in enumerate(alike))
    whole = dataclasses.replace(group(rollouts, version=version), lease_id=10 * version + 9, rollouts=rollouts)
    return [*batch, ScoredGroup.without_bonus(whole)]


def adapter_after(
    num_updates: int, memory_settings: MemorySettings | None, *, memory_from: int = 0
) -> tuple[bytes, int]:
    """The adapter's bytes after some updates, and how many episodes memory holds then. memory_from: its first version."""
    given = settings(max_policy_lag=0)
    rule = (memory_settings or MemorySettings(profile="off")).bonus_rule
    learner = Learner(tiny_policy(given), given, "template", (), MAX_NEW_TOKENS, bonus_rule=rule)
    memory = EpisodicMemory(memory_settings, HashEncoder(16)) if memory_settings else None
    for version in range(num_updates):
        batch = sampled_batch(version)
        learner.step(memory.score([item.group for item in batch]) if memory and version >= memory_from else batch)
    return bytes(learner.publish().weights), memory.report().episodes if memory else 0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"profile": "memr", "exploit_weight": 0.0, "explore_weight": 0.0},
        {"exploit_weight": 0.0, "explore_weight": 0.0, "profile": "memr", "stage": "after_normalisation"},
        {"exploit_weight": 0.0, "explore_weight": 0.0, "profile": "memr", "mix": "raw", "no_signal": "normalised"},
        {"exploit_weight": 0.0, "explore_weight": 0.0, "profile": "released_code"},
    ],
)
def test_with_weight_0_memory_remembers_and_changes_no_byte(values: dict[str, object]) -> None:
    plain, _ = adapter_after(3, None)
    silent, episodes = adapter_after(3, MemorySettings.model_validate(values))
    assert episodes == 60
    assert silent == plain


def test_a_memory_that_is_annealed_away_changes_no_byte() -> None:
    plain, _ = adapter_after(3, None)
    silent, episodes = adapter_after(3, MemorySettings(profile="memr", anneal_steps=1.0), memory_from=1)
    assert (silent, episodes) == (plain, 40)


def test_a_memory_that_speaks_changes_the_bytes() -> None:
    """Or the test above could not fail."""
    assert adapter_after(3, MemorySettings(profile="memr"))[0] != adapter_after(3, None)[0]


def test_an_annealed_memory_falls_silent_and_says_from_when_on() -> None:
    annealed = MemorySettings(profile="memr", anneal_steps=2.0)
    assert [annealed.bonus_rule.is_on(version) for version in (0, 1, 2, 3)] == [True, True, False, False]
    memory = EpisodicMemory(annealed, HashEncoder(16))
    memory.score([item.group for item in sampled_batch(0)])
    [*_, half] = memory.score([item.group for item in sampled_batch(1)])
    [*_, none] = memory.score([item.group for item in sampled_batch(2)])
    assert 0 < half.bonus_G.max() <= 0.25
    assert none.exploit_G.any() or none.explore_G.any()
    assert not none.bonus_G.any()


@pytest.mark.parametrize(
    ("values", "on"),
    [
        ({}, [False, False, False]),
        ({"exploit_weight": 1.0}, [True, True, True]),
        ({"profile": "off"}, [False, False, False]),
        ({"profile": "memr"}, [True, True, True]),
        ({"profile": "memr", "exploit_weight": 0.0, "explore_weight": 0.0}, [False, False, False]),
        ({"profile": "memr", "exploit_weight": 0.0, "variant": "memory_r"}, [False, False, False]),
        ({"profile": "memr", "exploit_weight": 0.0, "warmup": 2}, [False, False, True]),
        ({"profile": "memr", "warmup": 2}, [True, True, True]),
        ({"profile": "paper", "anneal_steps": 1.0}, [True, False, False]),
    ],
)
def test_the_rule_knows_when_memory_is_switched_on(values: dict[str, object], on: list[bool]) -> None:
    rule = MemorySettings.model_validate(values).bonus_rule
    assert [rule.is_on(version) for version in range(3)] == on
    assert MemorySettings.model_validate(values).pays == any(on)


@pytest.mark.parametrize(
    "changed", [{"where": "right_answers"}, {"anneal_steps": 30.0, "mix": "raw"}, {"cap_share": 0.3}]
)
def test_what_shapes_a_bonus_that_nobody_pays_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=f"{next(iter(changed))}.* would change nothing: profile 'remember' pays no bonus"
    ):
        MemorySettings.model_validate(changed)
    assert MemorySettings.model_validate({"profile": "memr"} | changed).pays
    assert MemorySettings.model_validate({"exploit_weight": 0.5} | changed).pays


def test_settings_that_were_written_down_whole_are_read_again() -> None:
    for profile in ("remember", "memr", "paper", "released_code", "off"):
        given = MemorySettings.model_validate({"profile": profile})
        assert MemorySettings.model_validate(given.model_dump(mode="json", exclude_none=True)) == given
