"""Profile memr, all its settings: no bonus makes a wrong answer worth more than a right one of the same form."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.rollout import RolloutGroup
from contracts.verdict import Scored
from learner.config import LearnerSettings
from learner.credit import credit
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from tests.fakes import make_group

TEXTS = ["one", "one more", "two", "three", "<think>one</think> 3", "something else", "five and six"]
ANSWERS = st.lists(
    st.tuples(st.sampled_from(TEXTS), st.booleans(), st.sampled_from([0.0, 0.25, 3.0])), min_size=2, max_size=6
)
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "variant": st.sampled_from(["memory_r_plus", "memory_r"]),
    "cap_share": st.sampled_from([0.01, 0.5, 0.99]),
    "stage": st.sampled_from(["before_normalisation", "after_normalisation"]),
    "where": st.sampled_from(["everywhere", "no_task_signal", "right_answers", "wrong_answers"]),
    "no_signal": st.sampled_from(["centred", "normalised"]),
    "no_signal_weight": st.sampled_from([0.0, 1.0, 10.0]),
    "anneal_steps": st.sampled_from([None, 3.0]),
    "exploit_weight": st.sampled_from([0.0, 0.3, 7.0]),
    "explore_weight": st.sampled_from([0.0, 0.3, 7.0]),
    "explore_decay_steps": st.sampled_from([None, 2.0]),
    "warmup": st.integers(0, 2),
    "explore_when_empty": st.sampled_from([0.0, 1.0]),
    "window": st.sampled_from([1, 4, 100]),
    "normaliser_range_floor": st.sampled_from([0.0, 1e-3]),
    "exploit_form": st.sampled_from(["negative_distance", "one_minus_scaled_distance"]),
    "all_correct_groups": st.sampled_from(["off", "as_they_come"]),
}


def answered(lease_id: int, answers: list[tuple[str, bool, float]], value: float, version: int) -> RolloutGroup:
    """answers: text, whether it is right, what the other parts of the reward give."""
    group = make_group(lease_id, rewards=[0.0] * len(answers), question=f"question {lease_id % 2}", version=version)
    rollouts = tuple(
        dataclasses.replace(
            one, text=text, verdict=Scored(value * right + form, right, {"correctness": value * right, "format": form})
        )
        for one, (text, right, form) in zip(group.rollouts, answers, strict=True)
    )
    return dataclasses.replace(group, rollouts=rollouts)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    rows=st.fixed_dictionaries({}, optional=SETTINGS),
    history=st.lists(ANSWERS, min_size=1, max_size=6),
    value=st.sampled_from([0.5, 1.0, 2.0, 20.0]),
    advantage=st.sampled_from(["grpo", "dr_grpo", "rloo"]),
)
def test_memory_never_reverses_right_and_wrong(
    rows: dict[str, Any], history: list[list[tuple[str, bool, float]]], value: float, advantage: Any
) -> None:
    wanted = MemorySettings(**{"profile": "memr"} | rows)
    memory = EpisodicMemory(wanted, HashEncoder(16), value_of_correct=value)
    groups = [answered(i, answers, value, i) for i, answers in enumerate(history)]
    for answers, scored in zip(history, memory.score(groups), strict=True):
        advantages_G = credit(scored, LearnerSettings(advantage=advantage), wanted.bonus_rule).advantages_G
        for i, (_, right, form) in enumerate(answers):
            for j, (_, other_right, other_form) in enumerate(answers):
                if right and not other_right and form == other_form:
                    assert advantages_G[i] > advantages_G[j], (answers, scored.bonus_G, advantages_G)


@pytest.mark.parametrize(("profile", "reverses"), [("paper", True), ("memr", False)])
def test_the_papers_sum_does_reverse_them(profile: Any, reverses: bool) -> None:
    """The wrong answer resembles a success and no failure: 0 + 1 + 1 against 1. Or the test above could not fail."""
    wanted = MemorySettings(profile=profile)
    memory = EpisodicMemory(wanted, HashEncoder(16))
    memory.score([answered(0, [("two", True, 0.0), ("something else", False, 0.0)], 1.0, 0)])
    [scored] = memory.score([answered(2, [("something else", True, 0.0), ("two", False, 0.0)], 1.0, 0)])
    right, wrong = credit(scored, LearnerSettings(), wanted.bonus_rule).advantages_G
    assert (right < wrong) == reverses


@pytest.mark.parametrize("share", [1.0, 1.5, 5.0])
def test_a_share_from_one_on_is_refused_with_a_sentence(share: float) -> None:
    with pytest.raises(
        ValidationError, match="from 1.0 on a wrong answer that memory likes may earn more than a right"
    ):
        MemorySettings(profile="memr", cap_share=share)
    assert (
        MemorySettings(profile="memr", mix="capped", cap_share=share).cap_share == share
    )  # as runs of 57c9e8c may say
