"""Faults between a published adapter and what an engine serves, for proof_power.py: the engine gets other bytes, or another
scale, than the manifest speaks of."""

from collections.abc import Callable
from dataclasses import replace

import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from contracts.adapter import Adapter
from contracts.ports import AsyncEngine


def _changed(adapter: Adapter, change: Callable[[str, Tensor], Tensor]) -> Adapter:
    tensors = {name: change(name, t).contiguous() for name, t in tensors_of(bytes(adapter.weights)).items()}
    return _with_bytes(adapter, bytes_of(tensors))


def _with_bytes(adapter: Adapter, weights: bytes | memoryview) -> Adapter:
    """Other weights under the same manifest, as an engine may end up with; made without the check of the hash."""
    made: Adapter = object.__new__(Adapter)
    object.__setattr__(made, "manifest", adapter.manifest)
    object.__setattr__(made, "weights", weights)
    return made


def _scaled(adapter: Adapter, factor: float) -> Adapter:
    lora = adapter.manifest.lora
    return replace(adapter, manifest=replace(adapter.manifest, lora=replace(lora, alpha=lora.alpha * factor)))


def _without(adapter: Adapter, *parts: str) -> Adapter:
    return _changed(adapter, lambda name, t: t * 0 if "lora_B" in name and any(p in name for p in parts) else t)


def _noisy(adapter: Adapter, share: float) -> Adapter:
    generator = torch.Generator().manual_seed(1)

    def change(name: str, t: Tensor) -> Tensor:
        noise = torch.randn(t.shape, generator=generator) * t.float().square().mean().sqrt()
        return (t + share * noise).to(t.dtype) if "lora_B" in name else t

    return _changed(adapter, change)


STALE = "stale by one version"
Fault = Callable[[Adapter, Adapter], Adapter]
FAULTS: dict[str, Fault] = {
    "never applied": lambda adapter, _: _scaled(adapter, 0.0),
    STALE: lambda adapter, before: _with_bytes(adapter, before.weights),
    "scaled by 0.8": lambda adapter, _: _scaled(adapter, 0.8),
    "applied twice": lambda adapter, _: _scaled(adapter, 2.0),
    "half of the modules": lambda adapter, _: _without(adapter, "q_proj", "k_proj", "v_proj", "o_proj"),
    "one layer of 30": lambda adapter, _: _without(adapter, ".layers.13."),
    "20 % noise on B": lambda adapter, _: _noisy(adapter, 0.2),
}


class FaultyEngine:
    """An AsyncEngine that loads something else than it was asked to, while `fault` is set."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.fault: Callable[[Adapter], Adapter] | None = None
        self.continuous = engine.continuous
        self.drop_adapter, self.generate, self.score = engine.drop_adapter, engine.generate, engine.score
        self.close = engine.close

    async def load_adapter(self, adapter: Adapter) -> None:
        await self._engine.load_adapter(adapter if self.fault is None else self.fault(adapter))
