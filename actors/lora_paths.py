"""Two ways of making a model act with an adapter: merged into a copy of the weights, or added on the side.

Merged costs nothing per token and one pass over the weights per version change; its base weights are kept, so
every change starts from them and never accumulates error. In bfloat16 it rounds W + BA to 8 bits, which loses
updates far smaller than the weights. Side is two thin products per layer and step, without that rounding.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from actors.lora_weights import LoraPair, LoraWeights


class LoraPath(Protocol):
    def use(self, weights: LoraWeights) -> None:
        """Every forward from here on is the base model plus these weights."""


class MergedLora:
    """W = W0 + scale B A, computed in float32 and cast.

    The loaded weight stays as W0 (often a file mapping that workers share) and the layer gets one of its own, so a
    weight tied to the embedding leaves the embedding alone.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._layers = layers
        self._base: dict[str, Tensor] = {}

    @torch.no_grad()
    def use(self, weights: LoraWeights) -> None:
        for path in self._base.keys() - weights.pairs.keys():
            self._layers[path].weight.copy_(self._base[path])
        for path, pair in weights.pairs.items():
            layer = self._layers[path]
            if path not in self._base:
                self._base[path] = layer.weight.detach()
                layer.weight = nn.Parameter(torch.empty_like(layer.weight), requires_grad=False)
            merged = torch.addmm(self._base[path].float(), pair.b_OK, pair.a_KI, alpha=weights.scale)
            layer.weight.copy_(merged)


class SideLora:
    """y = x W0^T + scale (x A^T) B^T through forward hooks, in the base weights' dtype."""

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._pairs: dict[str, LoraPair] = {}
        self._scale = 0.0
        self._dtypes = {path: layer.weight.dtype for path, layer in layers.items()}
        for path, layer in layers.items():
            layer.register_forward_hook(self._hook(path))

    def use(self, weights: LoraWeights) -> None:
        self._scale = weights.scale
        self._pairs = {
            path: LoraPair(pair.a_KI.to(self._dtypes[path]), pair.b_OK.to(self._dtypes[path]))
            for path, pair in weights.pairs.items()
        }

    def _hook(self, path: str) -> Any:
        def add_side(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            pair = self._pairs.get(path)
            if pair is None:
                return output
            flat = inputs[0].reshape(-1, pair.a_KI.shape[1])
            thin = flat @ pair.a_KI.t()
            side = torch.addmm(output.view(-1, output.shape[-1]), thin, pair.b_OK.t(), alpha=self._scale)
            return side.view(output.shape)

        return add_side
