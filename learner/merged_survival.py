"""How much of an adapter is left in weights that have it merged in and are rounded to a data type.

survival = <cast(W0 + D) - W0, D> / <D, D>, over all adapted layers together, with D = scale B A and W0 the weight as that
data type holds it. 1: all of it; 0.06: what acts of the update is 6 % of it (and rounding noise beside). Where D is 0
nothing can be lost: 1.

Shape letters: R rows (of a layer's outputs), I layer inputs, K rank.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def survival(layers: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> float:
    """layers: W0_RI (any float type) and D_RI (float32), both whole or the same rows of both."""
    kept = wanted = 0.0
    for base_RI, delta_RI in layers:
        rounded_RI = base_RI.to(dtype).float()
        step_RI = (rounded_RI + delta_RI).to(dtype).float() - rounded_RI
        kept += float(torch.sum(step_RI * delta_RI, dtype=torch.float64))
        wanted += float(torch.sum(delta_RI * delta_RI, dtype=torch.float64))
    return kept / wanted if wanted > 0 else 1.0
