"""At the settings of profile memr the bonus says something: it differs within groups, whatever the task's texts look like.

At 57c9e8c it was the same number in 91 % of groups: the cap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from contracts.ports import TextEncoder
from contracts.rollout import RolloutGroup, ScoredGroup
from learner.bonus_effect import bonus_effect
from learner.config import LearnerSettings
from learner.credit import credit_all
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder, SentenceEncoder
from memory_service.service import EpisodicMemory
from tests.fakes import make_group

Sample = tuple[str, str, bool]
"""Question, text, whether it is right."""


def short_sums(random: np.random.Generator, a: int, b: int) -> Iterator[Sample]:
    for _ in range(8):
        value = a + b + int(random.choice([0, 0, 1, -1, 2, 10]))
        text = str(random.choice([f"{value}", f" {value}.", f"The answer is {value}", f"{a} + {b} = {value}"]))
        yield f"What is {a} + {b}?", text, value == a + b


def scratchpad(random: np.random.Generator, a: int, b: int) -> Iterator[Sample]:
    for _ in range(8):
        ones, tens = a % 10 + b % 10, a // 10 + b // 10
        slip = int(random.choice([0, 0, 0, 1, 10]))
        value = ones + 10 * tens + slip
        steps = f"{a % 10}+{b % 10}={ones}; {a // 10}+{b // 10}={tens + slip // 10}; sum {value}"
        yield f"{a}+{b}=", f"<think>{steps}</think><answer>{value}</answer>", slip == 0


def prose(random: np.random.Generator, a: int, b: int) -> Iterator[Sample]:
    openings = [
        "First we count the apples.",
        "Let us think.",
        "She buys more, so we add.",
        "We take away what she ate.",
    ]
    for _ in range(8):
        value = int(random.choice([a + b, a + b, a - b, a * b]))
        middle = str(random.choice(["That makes", "Altogether there are", "What is left is"]))
        text = f"{random.choice(openings)} There are {a} apples and {b} pears. {middle} {value} pieces of fruit. #### {value}"
        yield f"A basket holds {a} apples and {b} pears. How many pieces of fruit are there?", text, value == a + b


TASKS = {"short sums": short_sums, "scratchpad": scratchpad, "prose": prose}


def sampled(task: str, count: int = 40) -> list[RolloutGroup]:
    random = np.random.default_rng(len(task))
    made = []
    for lease_id in range(count):
        samples = list(TASKS[task](random, int(random.integers(10, 30)), int(random.integers(10, 30))))
        group = make_group(lease_id, rewards=[float(right) for _, _, right in samples], question=samples[0][0])
        rollouts = tuple(replace(r, text=text) for r, (_, text, _) in zip(group.rollouts, samples, strict=True))
        made.append(replace(group, rollouts=rollouts))
    return made


def says_something(encoder: TextEncoder, task: str, wanted: MemorySettings) -> tuple[float, float]:
    """Share of groups whose advantages change, of the groups after the first ten; spread of the bonus."""
    scored: Sequence[ScoredGroup] = EpisodicMemory(wanted, encoder).score(sampled(task))[10:]
    effect = bonus_effect(scored, credit_all(scored, LearnerSettings(), wanted.bonus_rule))
    return effect.bonus_changed_share, effect.bonus_std


@pytest.mark.parametrize("task", TASKS)
def test_the_default_bonus_differs_within_groups(task: str) -> None:
    changed, spread = says_something(HashEncoder(64), task, MemorySettings(profile="memr"))
    assert changed > 0.95
    assert spread > 0.01


@pytest.mark.parametrize("task", TASKS)
def test_the_cap_of_57c9e8c_does_not(task: str) -> None:
    """Or the test above could not fail."""
    changed, spread = says_something(HashEncoder(64), task, MemorySettings(profile="memr", mix="capped"))
    scaled = says_something(HashEncoder(64), task, MemorySettings(profile="memr"))
    assert changed < scaled[0] - 0.1
    assert spread < scaled[1]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_with_the_real_encoder_in_bfloat16_it_differs_too(task: str) -> None:
    wanted = MemorySettings(profile="memr", encoder_dtype="bfloat16")
    changed, spread = says_something(SentenceEncoder(wanted), task, wanted)
    assert changed > 0.95
    assert spread > 0.01
