"""The whole learner on a problem that it must solve."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.learner import Learner
from tests.unit.learner import builders
from tests.unit.learner.builders import group, rollout, scored, tiny_learner, with_own_logprobs

PROMPT = [1, 2, 3]


def probabilities(learner: Learner) -> NDArray[np.float64]:
    pairs = [np.array([*PROMPT, token], np.int32) for token in range(builders.VOCABULARY)]
    return np.exp([builders.policy_of(learner).sequence_logprobs(tokens_P)[-1] for tokens_P in pairs])


def test_bandit_is_learned_in_a_few_updates() -> None:
    """61 arms, tokens below 8 pay: their share of the probability goes from a seventh to four fifths."""
    learner = tiny_learner(warm=False, learning_rate=2e-2)
    rng = np.random.default_rng(0)
    shares = []
    for version in range(12):
        p = probabilities(learner)
        shares.append(p[:8].sum())
        arms = rng.choice(builders.VOCABULARY, size=32, p=p / p.sum())
        rollouts = [rollout([int(arm)], float(arm < 8)) for arm in arms]
        learner.step(with_own_logprobs(builders.policy_of(learner), [scored(group(rollouts, PROMPT, version))]))
    assert shares[0] < 0.25
    assert shares[-1] > 0.8


def test_same_seed_same_adapter_bytes() -> None:
    def run() -> bytes:
        torch.manual_seed(0)
        learner = tiny_learner(warm=False)
        for version in range(2):
            learner.step([scored(group(g.group.rollouts, version=version)) for g in builders.random_batch()])
        return bytes(learner.publish().weights)

    assert run() == run()
