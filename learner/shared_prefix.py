"""Hidden states at the places that predict policy tokens, in two ways that give the same numbers.

`packed_hidden` runs each prompt once for all rows of its group and has no padding (packed_layout.py); gradients flow
through the prompt's keys and values. `padded_hidden` runs every row whole through the model's own attention: for
models whose attention the packed way does not know, and as its oracle.

Shape letters: N policy tokens, R rows, L longest row with its prompt, D hidden size.
"""

import numpy as np
import torch
from torch import Tensor, nn

from learner.packed_layout import packed_layout
from learner.packing import MicroBatch
from learner.token_table import TokenTable


def packed_hidden(backbone: nn.Module, batch: MicroBatch, table: TokenTable) -> Tensor:
    """[N, D], in the table's order."""
    device = table.target_N.device
    layout = packed_layout(batch, device)
    # A four-dimensional mask passes through transformers' mask making untouched; packed_attention ignores it.
    no_mask = torch.empty(1, 1, 0, 0, device=device)
    output = backbone(
        input_ids=layout.ids_1N,
        position_ids=layout.positions_1N,
        attention_mask=no_mask,
        use_cache=False,
        packed_layout=layout,
    )
    hidden_ND: Tensor = output.last_hidden_state[0]
    return hidden_ND.index_select(0, layout.source_of(table))


def padded_hidden(backbone: nn.Module, batch: MicroBatch, table: TokenTable) -> Tensor:
    """[N, D], in the table's order."""
    device = table.target_N.device
    lengths = np.array([row.num_with_prompt for row in batch.rows], np.int64)
    prompt_lengths = np.array([len(row.prompt_P) for row in batch.rows], np.int64)
    ids_RL = np.zeros((len(lengths), lengths.max()), np.int64)
    for ids_L, row in zip(ids_RL, batch.rows, strict=True):
        ids_L[: row.num_with_prompt] = np.concatenate([row.prompt_P, row.tokens_T[:-1]])
    mask_RL = np.arange(ids_RL.shape[1])[None, :] < lengths[:, None]
    output = backbone(
        input_ids=torch.from_numpy(ids_RL).to(device),
        attention_mask=torch.from_numpy(mask_RL).to(device),
        use_cache=False,
    )
    hidden_RLD: Tensor = output.last_hidden_state
    source_N = torch.from_numpy(prompt_lengths).to(device)[table.row_N] + table.offset_N - 1
    return hidden_RLD[table.row_N, source_N]
