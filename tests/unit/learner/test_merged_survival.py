"""How much of an update is left in rounded weights: the numbers of the packaged model, on a layer with its spread."""

import pytest
import torch
from torch import Tensor

from learner.merged_survival import survival
from learner.policy import LoraPolicy
from tests.small_updates import bfloat16_llama
from tests.unit.learner import builders

SPREAD = 0.19
"""Standard deviation of the packaged 135M model's linear weights."""


def layer_and_update(learning_rate: float, r: int = 16, alpha: float = 32.0) -> tuple[Tensor, Tensor]:
    """What one step of AdamW adds to a layer whose B was 0: every number of B moves by the learning rate."""
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(1536, 576, generator=generator) * SPREAD
    a_KI = (torch.rand(r, 576, generator=generator) * 2 - 1) * 576**-0.5
    b_OK = learning_rate * torch.randn(1536, r, generator=generator).sign()
    return weight_OI.bfloat16(), alpha / r * b_OK @ a_KI


@pytest.mark.parametrize(("learning_rate", "left"), [(1e-4, 0.06), (5e-5, 0.03)])
def test_one_update_in_bfloat16_weights(learning_rate: float, left: float) -> None:
    assert survival([layer_and_update(learning_rate)], torch.bfloat16) == pytest.approx(left, abs=0.01)


def test_float32_weights_keep_everything_and_so_does_a_large_update() -> None:
    assert survival([layer_and_update(1e-6)], torch.float32) == pytest.approx(1.0, abs=1e-3)
    assert survival([layer_and_update(3e-2)], torch.bfloat16) == pytest.approx(1.0, abs=1e-3)


def test_counted_by_hand() -> None:
    """At 1 a step of bfloat16 is 1/128: of +1/128, +1/1024, -1/256 the first is left whole, the second not, and the
    third is a whole step below 1."""
    delta = torch.tensor([[1 / 128, 1 / 1024, -1 / 256]])
    kept = (1 / 128) ** 2 + (1 / 256) ** 2
    assert survival([(torch.ones(1, 3), delta)], torch.bfloat16) == pytest.approx(kept / float((delta**2).sum()))


def test_layers_count_by_the_size_of_what_is_added_and_no_update_loses_nothing() -> None:
    large, small = layer_and_update(3e-2), layer_and_update(1e-5)
    assert survival([large, small], torch.bfloat16) > 0.99
    assert survival([(large[0], large[1] * 0)], torch.bfloat16) == 1.0
    assert survival([], torch.bfloat16) == 1.0


def test_a_policy_measures_itself_on_some_rows_of_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.adapter_size.SURVIVAL_ROWS", 12)
    policy = LoraPolicy.around(bfloat16_llama(0), "tiny", builders.settings(dtype="bfloat16"), 0)
    assert policy.merged_survival() == 1.0
    with torch.no_grad():
        for name, parameter in policy.adapter_parameters.items():
            if ".lora_B." in name:
                parameter.copy_(1e-4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).sign())
    whole = [
        (layer.get_base_layer().weight, layer.get_delta_weight("default").float())
        for name, layer in policy._model.named_modules()
        if hasattr(layer, "get_delta_weight")
    ]
    assert policy.merged_survival() == pytest.approx(survival(whole, torch.bfloat16), abs=0.02)
    assert policy.merged_survival() < 0.5


def test_every_update_reports_it() -> None:
    report = builders.tiny_learner(warm=False, learning_rate=1e-5).step(builders.random_batch())
    assert 0 < report.merged_survival < 0.9
