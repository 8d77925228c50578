"""Two ways of making a model act with an adapter: added on the side, or merged into a copy of the weights.

Side is the policy that the learner trains: y = x W0^T + scale (x A^T) B^T, summed before it is rounded to the weights'
data type, so that an update far smaller than a weight still acts. Merged costs nothing per token and one pass over the
weights per version change (its base weights are kept, so changes never accumulate), but rounds W0 + scale B A: nothing
in float32; in bfloat16 it keeps 6 % of one update at a learning rate of 1e-4 (docs/experiments.md).

Shape letters: N tokens, I layer inputs, O layer outputs, K rank; of several layers on one input, the sum of theirs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from actors.engines.torch_decoding.lora_weights import LoraWeights

_SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of sibling layers that read the same tensor: two thin products for all of them instead of two for each."""


class LoraPath(Protocol):
    """Applies an adapter to the loaded model."""

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


class UnmergedLora:
    """Adapted layers get a forward of their own; no weight of the model is copied or written.

    A and scale B are rounded to the base weights' data type once per version: both are exact where the learner trains in
    that type and the scale is a power of two.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._groups = [_OneInput(group) for group in _by_input(layers)]

    def use(self, weights: LoraWeights) -> None:
        for group in self._groups:
            group.use(weights)


def _by_input(layers: Mapping[str, nn.Linear]) -> list[dict[str, nn.Linear]]:
    """Layers that read the same tensor together, every other one alone."""
    names_with = {name: names for names in _SHARED_INPUT for name in names}
    groups: dict[tuple[str, tuple[str, ...], int], dict[str, nn.Linear]] = {}
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        key = (parent, names_with.get(name, (name,)), layer.in_features)
        groups.setdefault(key, {})[path] = layer
    return list(groups.values())


class _OneInput:
    """Layers that read one input. Whichever is called first computes what all of them add, the others take their part.

    Taken once each and only with the same tensor object: a layer that is called again, or with another tensor, computes
    it again, so a wrong guess about who reads what costs time and never an answer.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._layers = layers
        self._widths: dict[str, int] = {}
        self._a_IK = self._b_KO = torch.empty(0, 0)
        self._input: Tensor | None = None
        self._added: dict[str, Tensor] = {}
        for path, layer in layers.items():
            layer.forward = partial(self._forward, path, layer)  # type: ignore[method-assign]

    def use(self, weights: LoraWeights) -> None:
        pairs = {path: weights.pairs[path] for path in self._layers if path in weights.pairs}
        self._widths = {path: len(pair.b_OK) for path, pair in pairs.items()}
        self._input, self._added = None, {}
        if pairs:
            dtype = self._layers[next(iter(pairs))].weight.dtype
            self._a_IK = torch.cat([pair.a_KI for pair in pairs.values()]).to(dtype).t()
            blocks = [weights.scale * pair.b_OK.t() for pair in pairs.values()]
            self._b_KO = torch.block_diag(*blocks).to(dtype)  # type: ignore[no-untyped-call]

    def _forward(self, path: str, layer: nn.Linear, inputs: Tensor) -> Tensor:
        if path not in self._widths:
            return nn.functional.linear(inputs, layer.weight, layer.bias)
        flat_NI = inputs.flatten(0, -2)
        if inputs is not self._input or path not in self._added:
            self._add(inputs, flat_NI)
        # One sum, one rounding: added to an output that was rounded already, a small update would be rounded away.
        output_NO = torch.addmm(self._added.pop(path), flat_NI, layer.weight.t())
        if not self._added:
            self._input = None
        if layer.bias is not None:
            output_NO += layer.bias
        return output_NO.view(*inputs.shape[:-1], -1)

    def _add(self, inputs: Tensor, flat_NI: Tensor) -> None:
        added_NO = torch.mm(torch.mm(flat_NI, self._a_IK), self._b_KO)
        parts = torch.split(added_NO, list(self._widths.values()), dim=1)
        self._input, self._added = inputs, dict(zip(self._widths, parts, strict=True))
