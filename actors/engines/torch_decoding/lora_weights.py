"""An adapter's bytes as checked matrices: every tensor belongs to a layer of the model, every target has both.

A LoRA that loads and has no effect, or half of one, is the costliest silent fault of such systems
; whatever does not fit exactly is refused and named.

Shape letters: I layer inputs, O layer outputs, K rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from contracts.adapter import Adapter, LoraShape

_PREFIX = "base_model.model."
_SUFFIXES = {".lora_A.weight": "A", ".lora_B.weight": "B"}
ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True, eq=False)
class LoraPair:
    """One layer's update: y += scale * (x A^T) B^T. a_KI and b_OK are float32."""

    a_KI: Tensor
    b_OK: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoraWeights:
    """All pairs of one policy version by module path."""

    pairs: Mapping[str, LoraPair]
    scale: float

    def to(self, device: torch.device) -> "LoraWeights":
        moved = {path: LoraPair(pair.a_KI.to(device), pair.b_OK.to(device)) for path, pair in self.pairs.items()}
        return LoraWeights(moved, self.scale)


def read_lora(adapter: Adapter, layers: Mapping[str, nn.Linear], head: str | None) -> LoraWeights:
    """Parse and check an adapter against the model's linear layers (by module path).

    head: path of the output layer, which "all-linear" leaves out. Raises ValueError that names what does not fit.
    """
    where = f"adapter {adapter.manifest.name}"
    try:
        tensors = safetensors.torch.load(bytes(adapter.weights))
    except SafetensorError as error:
        raise ValueError(f"{where}: not a safetensors file ({error}); publish it again") from error
    halves, unknown = _by_module(tensors, layers)
    if unknown:
        raise ValueError(
            f"{where}: {len(unknown)} tensors belong to no linear layer of this model: {_some(unknown)}. "
            f"Load the base model that the learner trained"
        )
    if not halves:
        raise ValueError(f"{where}: matches no layer of this model, it holds {len(tensors)} tensors")
    problems = _misfits(halves, layers, adapter.manifest.lora) + _missing(halves, layers, adapter.manifest.lora, head)
    if problems:
        raise ValueError(f"{where}: {len(problems)} layers do not fit: {_some(problems)}")
    pairs = {path: LoraPair(half["A"].float(), half["B"].float()) for path, half in halves.items()}
    return LoraWeights(pairs, adapter.manifest.lora.scale)


def _by_module(
    tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Linear]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    halves: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
        path = name.removeprefix(_PREFIX).removesuffix(suffix)
        if not suffix or not name.startswith(_PREFIX) or path not in layers:
            unknown.append(name)
            continue
        halves.setdefault(path, {})[_SUFFIXES[suffix]] = tensor
    return halves, unknown


def _misfits(halves: Mapping[str, Mapping[str, Tensor]], layers: Mapping[str, nn.Linear], lora: LoraShape) -> list[str]:
    problems = []
    for path, half in halves.items():
        layer = layers[path]
        expected = {"A": (lora.r, layer.in_features), "B": (layer.out_features, lora.r)}
        for letter, shape in expected.items():
            actual = tuple(half[letter].shape) if letter in half else None
            if actual != shape:
                problems.append(f"{path}.lora_{letter} is {actual}, needs {shape}")
            elif not bool(torch.isfinite(half[letter]).all()):
                problems.append(f"{path}.lora_{letter} is not finite")
    return problems


def _missing(
    halves: Mapping[str, object], layers: Mapping[str, nn.Linear], lora: LoraShape, head: str | None
) -> list[str]:
    problems = []
    for target in lora.target_modules:
        wanted = [path for path in layers if _is_target(path, target, head)]
        if not wanted:
            problems.append(f"target {target!r} names no linear layer")
        problems += [f"{path} has no tensors but is a target" for path in wanted if path not in halves]
    return problems


def _is_target(path: str, target: str, head: str | None) -> bool:
    return path != head if target == ALL_LINEAR else path == target or path.endswith(f".{target}")


def _some(items: list[str]) -> str:
    shown = ", ".join(items[:4])
    return shown if len(items) <= 4 else f"{shown} and {len(items) - 4} more"
