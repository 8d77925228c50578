"""Where everything lies in the shared-prefix forward: one flat sequence, without padding.

    [prompt 0][prompt 1]..[inputs of row 0][inputs of row 1]..      N tokens, batch size 1

Norms, projections and MLPs see exactly the tokens that exist, and each prompt once. Only attention needs the tokens
in rows; `RowIndex` says how to lay them out there (right-padded) and back.

Shape letters: N tokens of the flat sequence or of one of its two parts, R rows, T longest row, P longest prompt.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.packing import MicroBatch
from learner.token_table import TokenTable


@dataclass(frozen=True, slots=True, eq=False)
class RowIndex:
    """pad_RT: flat index of each slot (0 in empty slots). unpad_N: slot, counted over [R x T], of each flat token."""

    pad_RT: Tensor
    unpad_N: Tensor

    @classmethod
    def of(cls, lengths: NDArray[np.int64], device: torch.device) -> "RowIndex":
        starts_R1 = (np.cumsum(lengths) - lengths)[:, None]
        slots_1T = np.arange(lengths.max(initial=0))[None, :]
        exists_RT = slots_1T < lengths[:, None]
        pad_RT = np.where(exists_RT, starts_R1 + slots_1T, 0)
        return cls(torch.from_numpy(pad_RT).to(device), torch.from_numpy(np.flatnonzero(exists_RT)).to(device))


@dataclass(frozen=True, slots=True, eq=False)
class PackedLayout:
    """ids_1N, positions_1N: int64. num_prompt_tokens: where the rows' part begins.
    prompt_of_R: prompt of each row. prompt_mask_RP: true on the tokens of the row's own prompt.
    last_of_prompt_R, start_of_R: flat indices of the row's last prompt token and of its first own input."""

    ids_1N: Tensor
    positions_1N: Tensor
    num_prompt_tokens: int
    prompts: RowIndex
    rows: RowIndex
    prompt_of_R: Tensor
    prompt_mask_RP: Tensor
    last_of_prompt_R: Tensor
    start_of_R: Tensor

    def source_of(self, table: TokenTable) -> Tensor:
        """Flat index of the hidden state that predicts each policy token: the one before it."""
        own_N = self.start_of_R[table.row_N] + table.offset_N - 1
        return torch.where(table.offset_N == 0, self.last_of_prompt_R[table.row_N], own_N)


def packed_layout(batch: MicroBatch, device: torch.device) -> PackedLayout:
    """Returns where every prompt and row of a micro-batch lies in one flat sequence."""
    prompt_lengths = np.array([len(prompt) for prompt in batch.prompts], np.int64)
    row_lengths = np.array([row.num_inputs for row in batch.rows], np.int64)
    parts = [*batch.prompts, *(row.tokens_T[:-1] for row in batch.rows)]
    first_position = prompt_lengths[batch.prompt_of_R]
    positions = [np.arange(n) for n in prompt_lengths]
    positions += [start + np.arange(n) for start, n in zip(first_position, row_lengths, strict=True)]
    num_prompt_tokens = int(prompt_lengths.sum())
    start_of_R = num_prompt_tokens + np.cumsum(row_lengths) - row_lengths
    prompt_mask_RP = np.arange(prompt_lengths.max())[None, :] < first_position[:, None]

    def tensor(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return PackedLayout(
        ids_1N=tensor(np.concatenate(parts).astype(np.int64)[None]),
        positions_1N=tensor(np.concatenate(positions)[None]),
        num_prompt_tokens=num_prompt_tokens,
        prompts=RowIndex.of(prompt_lengths, device),
        rows=RowIndex.of(row_lengths, device),
        prompt_of_R=tensor(batch.prompt_of_R),
        prompt_mask_RP=tensor(prompt_mask_RP),
        last_of_prompt_R=tensor(np.cumsum(prompt_lengths)[batch.prompt_of_R] - 1),
        start_of_R=tensor(start_of_R),
    )
