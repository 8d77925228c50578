"""Seeds and inverse-CDF sampling, against counting by hand and against a slow search."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from actors.engines.torch_decoding.sampling import BLOCK, inverse_cdf, sample_tokens
from actors.seeds import rollout_seed, turn_seed, uniforms


def slow_inverse_cdf(weights: list[float], uniform: float) -> int:
    """First index whose running sum exceeds uniform x total, one addition after the other."""
    target, running = uniform * math.fsum(weights), 0.0
    for index, weight in enumerate(weights):
        running += weight
        if running > target and weight > 0:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)


def ones(rows: int) -> Tensor:
    return torch.ones(rows)


def test_seed_depends_on_every_part_and_fits_63_bits() -> None:
    base = (7, "problem-1", 3, 0, 0)
    variants = [
        base,
        (8, *base[1:]),
        (7, "problem-2", 3, 0, 0),
        (7, "problem-1", 4, 0, 0),
        (*base[:3], 1, 0),
        (*base[:4], 1),
    ]
    seeds = [rollout_seed(*variant) for variant in variants]
    assert len(set(seeds)) == len(variants)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_is_pinned_so_that_old_runs_stay_reproducible() -> None:
    digest = hashlib.sha256(b"7\n3\n0\n0\nproblem-1").digest()
    assert rollout_seed(7, "problem-1", 3, 0, 0) == int.from_bytes(digest[:8], "big") // 2


def test_turns_have_streams_of_their_own_and_the_first_is_the_rollouts() -> None:
    assert turn_seed(99, 0) == 99
    assert len({turn_seed(99, turn) for turn in range(20)}) == 20


def test_a_longer_stream_begins_with_the_shorter_one() -> None:
    np.testing.assert_array_equal(uniforms(5, 100)[:7], uniforms(5, 7))
    assert uniforms(5, 7).tolist() != uniforms(6, 7).tolist()


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 0), (0.24, 0), (0.25, 2), (0.49, 2), (0.5, 3), (0.999, 3)], ids=str
)
def test_token_is_where_the_cumulative_probability_passes_the_uniform(uniform: float, token: int) -> None:
    weights = torch.tensor([[1.0, 0.0, 1.0, 2.0]])
    found, total = inverse_cdf(weights, torch.tensor([uniform], dtype=torch.float64))
    assert (int(found), float(total)) == (token, 4.0)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 3 * BLOCK + 5),
    seed=st.integers(0, 2**32 - 1),
    uniform=st.floats(0, 1, exclude_max=True),
    share=st.floats(0, 0.95),
)
def test_blockwise_search_equals_the_slow_one(size: int, seed: int, uniform: float, share: float) -> None:
    random = np.random.default_rng(seed)
    # Multiples of 1/64 add up without rounding, in any order, in float32.
    weights = np.where(random.random(size) < share, 0, random.integers(0, 64, size)) / 64
    weights[random.integers(size)] = 1.0
    found, _ = inverse_cdf(
        torch.tensor(weights[None], dtype=torch.float32), torch.tensor([uniform], dtype=torch.float64)
    )
    assert int(found) == slow_inverse_cdf(weights.tolist(), uniform)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0.0)])
def test_a_token_of_probability_zero_is_never_drawn(uniform: float) -> None:
    logits = torch.full((1, BLOCK + 9), -torch.inf)
    logits[0, 5], logits[0, BLOCK + 2] = 0.1, 0.3
    tokens, logprobs = sample_tokens(logits, torch.tensor([uniform], dtype=torch.float64), ones(1))
    assert int(tokens) in (5, BLOCK + 2)
    assert bool(torch.isfinite(logprobs).all())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_logprob_is_log_softmax_at_the_sampling_temperature(temperature: float) -> None:
    logits = torch.randn(6, 700, generator=torch.Generator().manual_seed(3)) * 4
    draws = torch.from_numpy(uniforms(1, 6))
    tokens, logprobs = sample_tokens(logits.clone(), draws, torch.full((6,), temperature))
    expected = torch.log_softmax(logits.double() / temperature, dim=-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected.float(), atol=1e-5, rtol=0)


def test_greedy_rows_take_the_best_token_at_temperature_one_beside_sampled_rows() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    tokens, logprobs = sample_tokens(logits, torch.tensor([0.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 2.0]))
    assert tokens.tolist() == [1, 0]
    expected = torch.stack([torch.log_softmax(logits[0], -1)[1], torch.log_softmax(logits[1] / 2, -1)[0]])
    torch.testing.assert_close(logprobs, expected)


def test_scratch_memory_changes_nothing() -> None:
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    draws = torch.from_numpy(uniforms(2, 3))
    fresh = sample_tokens(logits, draws, ones(3))
    reused = sample_tokens(logits, draws, ones(3), torch.full((3, 500), torch.nan))
    torch.testing.assert_close(fresh, reused)


def test_not_a_number_shows_in_the_logprob() -> None:
    logits = torch.tensor([[0.0, torch.nan, 1.0]])
    _, logprobs = sample_tokens(logits, torch.tensor([0.3], dtype=torch.float64), ones(1))
    assert math.isnan(float(logprobs))


def test_frequencies_follow_the_softmax() -> None:
    """Pearson's chi-square over 20 tokens, 20,000 draws: 19 degrees of freedom, 99.9 % point 43.8."""
    logits = torch.randn(20, generator=torch.Generator().manual_seed(1)) * 1.5
    draws = torch.from_numpy(uniforms(4, 20_000))
    tokens, _ = sample_tokens(logits.expand(20_000, 20), draws, torch.full((20_000,), 0.8))
    expected = torch.softmax(logits.double() / 0.8, -1) * 20_000
    observed = torch.bincount(tokens, minlength=20).double()
    assert float(((observed - expected) ** 2 / expected).sum()) < 43.8
