"""A policy without a model, under the real update: it finds the log-probs that the engine reported.

    log p(token) = engine's log-prob + c (w - stop_gradient(w)),  w = weight [token id mod size]

so ratios are 1, and the gradient in w is the policy gradient. c differs from row to row: equal rollouts with opposite
advantages would cancel to a gradient of exactly 0, which the learner takes for a fault.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from contracts.adapter import LoraShape
from learner.packing import MicroBatch
from learner.token_table import TokenTable, token_table

NAME = "scripted"
_SEED, _SIZE = 0, 0.1


class ScriptedPolicy:
    """Implements learner.ports.Policy. num_weights: float32 numbers that train. Probes are not read: no engine can prove
    weights that it does not use."""

    base_model = NAME
    lora = LoraShape(r=1, alpha=1.0, target_modules=())
    shares_prompts = False
    plain_rows = ""
    device = torch.device("cpu")
    dtype_name = "float32"

    def __init__(self, num_weights: int) -> None:
        drawn = torch.randn(num_weights, generator=torch.Generator().manual_seed(_SEED))
        self._weight = nn.Parameter(_SIZE * drawn)

    @property
    def adapter_parameters(self) -> Mapping[str, nn.Parameter]:
        return {NAME: self._weight}

    def score(self, batch: MicroBatch) -> tuple[TokenTable, Tensor, Tensor]:
        table = token_table(batch.rows, self.device)
        weight_N = self._weight[table.target_N % len(self._weight)]
        slope_N = 1 + table.row_N / max(1, table.num_rows)
        logprob_N = table.engine_logprob_N + slope_N * (weight_N - weight_N.detach())
        return table, logprob_N, torch.zeros_like(logprob_N)

    def logprobs(self, batch: MicroBatch) -> Tensor:
        return token_table(batch.rows, self.device).engine_logprob_N

    def sequences_logprobs(self, sequences: Sequence[NDArray[np.int32]]) -> list[NDArray[np.float32]]:
        return [np.zeros(len(tokens_P), np.float32) for tokens_P in sequences]

    @contextmanager
    def reference(self) -> Iterator[None]:
        yield

    @contextmanager
    def computed_in(self, dtype_name: str) -> Iterator[None]:  # noqa: ARG002
        yield

    @contextmanager
    def amplified(self, factor: float) -> Iterator[None]:  # noqa: ARG002
        yield

    def relative_size(self) -> float:
        return 0.0

    def merged_survival(self) -> float:
        return 1.0

    def adapter_bytes(self) -> bytes:
        return tensors_to_bytes({NAME: self._weight.detach().contiguous()})
