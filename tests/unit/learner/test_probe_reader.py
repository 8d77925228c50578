"""Two readings of one set of weights, and the adapter amplified: against plain forwards of converted models."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from learner.learner import Learner
from learner.policy import LoraPolicy
from learner.probe_reader import AMPLIFIED_SIZE, ROW_TOKENS, ROWS, ProbeReader, amplification, mixed_rows
from tests.unit.learner import builders

SHORT, LONG = np.arange(3, 20, dtype=np.int32), np.arange(40, dtype=np.int32)


def policy(dtype: str, b_size: float = 1.0) -> LoraPolicy:
    """With a B of b_size times 0.1 a weight."""
    base = builders.tiny_llama(dtype=getattr(torch, dtype))
    made = LoraPolicy.around(base, "tiny", builders.settings(dtype=dtype), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.adapter_parameters.items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 * b_size)
    return made


def converted(made: LoraPolicy, tokens_P: NDArray[np.int32]) -> NDArray[np.float32]:
    """Log-probs of the same weights in a model that is float32 throughout."""
    wide = LoraPolicy.around(builders.tiny_llama(), "tiny", builders.settings(), 0)
    with torch.no_grad():
        for name, own in [*wide._model.named_parameters(), *wide._model.named_buffers()]:
            own.copy_(dict([*made._model.named_parameters(), *made._model.named_buffers()])[name])
    return wide.sequence_logprobs(tokens_P)


def test_a_bfloat16_policy_reads_in_float32_what_a_float32_model_of_its_weights_computes() -> None:
    made = policy("bfloat16")
    with made.computed_in("float32"):
        exact_P = made.sequence_logprobs(LONG)
    np.testing.assert_allclose(exact_P, converted(made, LONG), atol=2e-5)
    assert np.abs(made.sequence_logprobs(LONG) - exact_P).mean() > 2e-3, "its own path rounds"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_reading_leaves_the_weights_as_they_were_even_after_an_error(dtype: str) -> None:
    made = policy(dtype)
    before = {name: p.detach().clone() for name, p in made._model.named_parameters()}
    other = "float32" if dtype == "bfloat16" else "bfloat16"
    with made.computed_in(other):
        made.sequence_logprobs(LONG)
    with pytest.raises(IndexError), made.computed_in(other):
        made.sequence_logprobs(LONG + 60)
    for name, parameter in made._model.named_parameters():
        assert parameter.dtype == getattr(torch, dtype)
        assert torch.equal(parameter, before[name]), name
    assert all(not m._forward_pre_hooks for m in made._model.modules() if isinstance(m, nn.Linear))


def test_several_sequences_at_once_are_read_as_each_alone() -> None:
    made = policy("float32")
    sequences = [SHORT, LONG, np.array([5], np.int32), SHORT[:2]]
    for together, tokens_P in zip(made.sequences_logprobs(sequences), sequences, strict=True):
        np.testing.assert_allclose(together, made.sequence_logprobs(tokens_P), atol=1e-5)


def test_probes_carry_both_readings_and_rows_of_their_tokens_the_amplified_adapters() -> None:
    made = policy("bfloat16", b_size=0.01)
    (short, long), amplified = ProbeReader(made, [SHORT, LONG]).read()
    assert amplified is not None
    assert amplified.factor > 1
    assert [len(probe.tokens_P) for probe in amplified.probes] == [min(ROW_TOKENS, len(LONG))] * ROWS
    assert {int(t) for probe in amplified.probes for t in probe.tokens_P} <= {*SHORT.tolist(), *LONG.tolist()}
    rows = [probe.tokens_P for probe in amplified.probes]
    with made.amplified(amplified.factor):
        np.testing.assert_array_equal(amplified.probes[1].bfloat16_P, made.sequences_logprobs(rows)[1])
        with made.computed_in("float32"):
            np.testing.assert_array_equal(amplified.probes[1].float32_P, made.sequences_logprobs(rows)[1])
        assert made.relative_size() == pytest.approx(AMPLIFIED_SIZE, rel=0.5)
    with made.reference():
        np.testing.assert_array_equal(long.bfloat16.base_P, made.sequences_logprobs([SHORT, LONG])[1])
        base = made.sequences_logprobs(rows)
    np.testing.assert_array_equal(long.bfloat16.adapted_P, made.sequences_logprobs([SHORT, LONG])[1])
    moved = [np.abs(probe.float32_P - base_P).mean() for probe, base_P in zip(amplified.probes, base, strict=True)]
    assert np.median(moved) > 10 * np.abs(short.float32.adapted_P - short.float32.base_P).mean(), (
        "what rounding hides is seen"
    )


def test_rows_are_the_same_for_the_same_sequences_and_no_longer_than_the_longest() -> None:
    assert all(map(np.array_equal, mixed_rows([SHORT, LONG]), mixed_rows([SHORT, LONG])))
    assert {len(row) for row in mixed_rows([SHORT[:3], SHORT[:2]])} == {3}
    assert mixed_rows([]) == []


def test_an_untrained_adapter_has_nothing_to_amplify() -> None:
    [_], amplified = ProbeReader(policy("bfloat16", b_size=0.0), [LONG]).read()
    assert amplified is None


@pytest.mark.parametrize(
    ("size", "factor"), [(0.0, None), (0.5, 1.0), (5.0, 1.0), (0.25, 2.0), (0.001, 512.0), (1e-9, 2.0**20)]
)
def test_amplification_is_the_power_of_two_that_brings_an_adapter_to_half_of_its_weights(
    size: float, factor: float | None
) -> None:
    assert amplification(size) == factor


def test_the_relative_size_is_that_of_the_product_against_the_weight() -> None:
    made = policy("float32")
    ratios = []
    tensors = {name: p.detach() for name, p in made._model.named_parameters()}
    for name, a_RI in tensors.items():
        if "lora_A" in name:
            b_OR = tensors[name.replace("lora_A", "lora_B")]
            weight = tensors[name.replace("lora_A.default", "base_layer")]
            ratios.append(float((made.lora.scale * b_OR @ a_RI).norm() / weight.norm()))
    assert made.relative_size() == pytest.approx(float(np.sort(ratios)[(len(ratios) - 1) // 2]), rel=1e-4)


def test_the_frozen_weights_are_read_for_their_norms_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, norm = policy("bfloat16"), torch.linalg.norm
    sizes: list[int] = []

    def counted(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return torch.as_tensor(norm(tensor))

    monkeypatch.setattr(torch.linalg, "norm", counted)
    first = made.relative_size()
    layers = len(sizes)
    assert layers == len([name for name in made.adapter_parameters if "lora_A" in name]) > 0
    with torch.no_grad():
        for name, weight in made.adapter_parameters.items():
            if "lora_B" in name:
                weight.mul_(2.0)
    assert made.relative_size() == pytest.approx(2 * first), "the adapter's own part is read at each publish"
    assert len(sizes) == layers


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_reading_probes_changes_no_byte_of_what_is_learned(dtype: str) -> None:
    def three_updates(*probes: NDArray[np.int32]) -> bytes:
        given = builders.settings(dtype=dtype, lora_dropout=0.1)
        made = LoraPolicy.around(builders.tiny_llama(dtype=getattr(torch, dtype)), "tiny", given, 0)
        learner = Learner(made, given, "", probes, builders.MAX_NEW_TOKENS)
        torch.manual_seed(5)
        for version in range(3):
            learner.publish()
            learner.step(builders.random_batch(version, version=version))
        return bytes(learner.publish().weights)

    assert three_updates(SHORT, LONG) == three_updates()
