"""A second reading of a model: its own weights, another data type for every product and activation.

What two readings of one set of weights differ by is rounding alone, at these weights and on these tokens: the yardstick
for what an engine may differ by (actors/proof.py).

Weights are converted module by module on their way in and put back on the way out, so no second copy of the model ever
exists: the largest single layer is what it costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@contextmanager
def computed_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, `model` computes in dtype. For forwards without gradient; weights are the same objects afterwards."""
    handles = [handle for unit in _units(model) for handle in _hooks(unit, dtype)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that own parameters; an adapted layer goes with its base and its adapter as one."""
    if isinstance(module, BaseTunerLayer) or next(module.parameters(recurse=False), None) is not None:
        yield module
        return
    for child in module.children():
        yield from _units(child)


def _hooks(unit: nn.Module, dtype: torch.dtype) -> list[Any]:
    kept: list[tuple[nn.Parameter, Tensor]] = []

    def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        for parameter in unit.parameters():
            kept.append((parameter, parameter.data))
            parameter.data = parameter.data.to(dtype)
        return tuple(_converted(value, dtype) for value in inputs)

    def leave(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        while kept:
            parameter, data = kept.pop()
            parameter.data = data
        return _converted(output, dtype)

    return [unit.register_forward_pre_hook(enter), unit.register_forward_hook(leave, always_call=True)]


def _converted(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
