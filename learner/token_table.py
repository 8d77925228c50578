"""The policy tokens of a micro-batch as flat columns: what log-probs and losses work on.

Rows in order, tokens in order, only where the policy mask is on: N entries. Masks go by position, never by token id
.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learner.packing import TrainRow


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """target_N: int64 token ids to predict. row_N, offset_N: int64, which row and which of its tokens.
    engine_logprob_N, advantage_N, temperature_N: float32. lag_N: int64. num_rows: R."""

    target_N: Tensor
    row_N: Tensor
    offset_N: Tensor
    engine_logprob_N: Tensor
    advantage_N: Tensor
    temperature_N: Tensor
    lag_N: Tensor
    num_rows: int

    def __len__(self) -> int:
        return len(self.target_N)


def token_table(rows: Sequence[TrainRow], device: torch.device) -> TokenTable:
    """Returns the policy tokens of these rows as columns of length N, on the device."""
    offsets = [np.flatnonzero(row.policy_mask_T) for row in rows]
    counts = [len(offset) for offset in offsets]

    def column(values: Sequence[float], dtype: type) -> Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, dtype), counts)).to(device)

    def gathered(name: str, dtype: type) -> Tensor:
        parts = [getattr(row, name)[offset] for row, offset in zip(rows, offsets, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(dtype)).to(device)

    return TokenTable(
        target_N=gathered("tokens_T", np.int64),
        row_N=column(range(len(rows)), np.int64),
        offset_N=torch.from_numpy(np.concatenate(offsets).astype(np.int64)).to(device),
        engine_logprob_N=gathered("engine_logprobs_T", np.float32),
        advantage_N=column([row.advantage for row in rows], np.float32),
        temperature_N=column([row.temperature for row in rows], np.float32),
        lag_N=column([row.lag for row in rows], np.int64),
        num_rows=len(rows),
    )
