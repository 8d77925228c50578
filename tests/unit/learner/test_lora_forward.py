"""The learner's own forward: a small update acts in bfloat16, and formula and gradient stay PEFT's."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save

from learner.lora_forward import sum_once
from learner.policy import LoraPolicy
from tests.small_updates import SCALE, SEEDS, Scores, arrived, bfloat16_llama
from tests.unit.learner import builders


def test_one_update_arrives_at_the_learners_own_log_probs() -> None:
    """What it trains on, what its probes say, and what engines are compared with."""
    given = builders.settings(dtype="bfloat16", lora_r=4, lora_alpha=4 * SCALE)

    def share(seed: int) -> float:
        policy = LoraPolicy.around(bfloat16_llama(seed), "tiny", given, seed)

        def forward(tensors: dict[str, torch.Tensor]) -> Scores:
            policy.load_adapter_bytes(save({name: tensor.bfloat16() for name, tensor in tensors.items()}))
            return policy.sequence_logprobs

        return arrived(seed, forward)

    assert np.mean([share(seed) for seed in SEEDS]) > 0.7


class Biased(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(6, 10, bias=True), torch.nn.Linear(10, 3, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.second(torch.tanh(self.first(inputs)))
        return hidden


def peft_model(dropout: float = 0.0) -> PeftModel:
    config = LoraConfig(r=2, lora_alpha=5, lora_dropout=dropout, target_modules=["first", "second"])
    model = get_peft_model(Biased(), config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    assert isinstance(model, PeftModel)
    return model


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_outputs_and_gradients_are_pefts(dropout: float) -> None:
    inputs = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(2))
    found = []
    for ours in (False, True):
        model, given = peft_model(dropout), inputs.clone().requires_grad_()
        if ours:
            sum_once(model, "default")
        torch.manual_seed(3)  # of the dropout
        output = model(given)
        output.square().sum().backward()
        gradients = [p.grad for name, p in model.named_parameters() if "lora_" in name]
        found.append([output.detach(), given.grad, *gradients])
    for ours_, theirs in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-4)


def test_switched_off_the_base_model_is_left() -> None:
    model, inputs = peft_model(), torch.randn(4, 6)
    sum_once(model, "default")
    with model.disable_adapter():
        inside = model(inputs)
    assert torch.equal(inside, Biased()(inputs))
    assert not torch.equal(model(inputs), inside)
