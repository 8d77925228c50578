"""An adapted layer in numbers: norms of the frozen weight and of what the adapter adds, and a sample of rows of both.

Shape letters: O layer outputs, I layer inputs, R rank.
"""

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from learner.lora_forward import frozen_weight

SURVIVAL_ROWS = 64


def some_rows(layer: LoraLinear, adapter: str) -> tuple[Tensor, Tensor]:
    """Rows of a layer's frozen weight, and of what the adapter adds to them in float32."""
    weight_OI, a, b = frozen_weight(layer), layer.lora_A[adapter], layer.lora_B[adapter]
    assert isinstance(a, nn.Linear)
    assert isinstance(b, nn.Linear)
    rows = slice(None, None, -(-len(weight_OI) // SURVIVAL_ROWS))
    return weight_OI[rows], layer.scaling[adapter] * b.weight[rows].float() @ a.weight.float()


@torch.no_grad()
def adapter_norm(layer: LoraLayer, adapter: str) -> Tensor:
    """|scale B A| from the r x r products of the two: B A itself, as large as W, is never made."""
    a_RI, b_OR = (_weight(module).float() for module in (layer.lora_A[adapter], layer.lora_B[adapter]))
    size = ((b_OR.t() @ b_OR) * (a_RI @ a_RI.t())).sum().clamp(min=0).sqrt()
    return torch.as_tensor(layer.scaling[adapter] * size)


@torch.no_grad()
def base_norm(layer: LoraLayer) -> Tensor:
    """Returns the Frobenius norm of the frozen weight, a float32 scalar."""
    return torch.as_tensor(torch.linalg.norm(_weight(layer.get_base_layer()).float()))


def _weight(module: nn.Module) -> Tensor:
    weight: object = module.weight
    assert isinstance(weight, Tensor)
    return weight
