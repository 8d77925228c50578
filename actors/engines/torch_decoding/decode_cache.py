"""The KV cache of one batch: every prompt's keys and values once, every sample's own in a preallocated slab.

The model writes each new token through `Cache.update`; `shared_attention` reads the whole slab and masks its
unused end. Nothing is concatenated per step, and shapes change only every SLAB_STEP tokens: the bfloat16 matrix
library of CPUs compiles a kernel per shape (5 to 8 ms each, measured), a cost that would recur with every token.

Shape letters: N prompts, R rows (samples), H key-value heads, P prompt length (left-padded), C slab capacity,
D head size.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, CacheLayerMixin

SLAB_STEP = 32


class SuffixLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's slab, [R, H, C, D]; all rows are equally long because a batch decodes in lock-step."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros, not garbage: the unused end is multiplied by weight 0, and 0 x NaN is NaN.
        rows, heads = key_states.shape[:2]
        self.keys = key_states.new_zeros(rows, heads, SLAB_STEP, key_states.shape[-1])
        self.values = value_states.new_zeros(rows, heads, SLAB_STEP, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append one token per row ([R, H, 1, D]); returns the whole slab, of which `length` columns are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.length == self.keys.shape[2]:
            self.keys, self.values = (
                functional.pad(self.keys, (0, 0, 0, SLAB_STEP)),
                functional.pad(self.values, (0, 0, 0, SLAB_STEP)),
            )
        self.keys[:, :, self.length] = key_states[:, :, 0]
        self.values[:, :, self.length] = value_states[:, :, 0]
        self.length += 1
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class SharedPrefixCache(Cache):
    """All layers' slabs and prompt parts, and which row belongs to which prompt.

    prefix_keys, prefix_values: per layer [N, H, P, D]. prompt_mask_NP: true on real tokens.
    prompt_of_R: the prompt of each row, ascending.
    """

    def __init__(
        self, prefix_keys: list[Tensor], prefix_values: list[Tensor], prompt_mask_NP: Tensor, prompt_of_R: Tensor
    ) -> None:
        self.suffixes = [SuffixLayer() for _ in prefix_keys]
        super().__init__(layers=list(self.suffixes))
        self.prefix_keys, self.prefix_values = prefix_keys, prefix_values
        self.prompt_mask_NP, self.prompt_of_R = prompt_mask_NP, prompt_of_R
        self._index()

    def keep(self, rows: Tensor) -> None:
        """Drop every row that is not listed, and every prompt whose last row left."""
        for suffix in self.suffixes:
            suffix.keep(rows)
        kept_N, self.prompt_of_R = torch.unique(self.prompt_of_R[rows], return_inverse=True)
        if len(kept_N) < len(self.prompt_mask_NP):
            self.prefix_keys = [keys[kept_N] for keys in self.prefix_keys]
            self.prefix_values = [values[kept_N] for values in self.prefix_values]
            self.prompt_mask_NP = self.prompt_mask_NP[kept_N]
        self._index()

    def _index(self) -> None:
        """Rows as a rectangle [N, S] of prompts by slots: where each row sits, and which row fills each slot."""
        counts_N = torch.bincount(self.prompt_of_R, minlength=len(self.prompt_mask_NP))
        num_slots = int(counts_N.max())
        first_N = counts_N.cumsum(0) - counts_N
        rows_R = torch.arange(len(self.prompt_of_R), device=self.prompt_of_R.device)
        self.slot_of_R = self.prompt_of_R * num_slots + rows_R - first_N[self.prompt_of_R]
        self.row_of_slot = torch.zeros(len(counts_N) * num_slots, dtype=torch.long, device=rows_R.device)
        self.row_of_slot[self.slot_of_R] = rows_R
        self.is_rectangle = len(self.row_of_slot) == len(rows_R)
        self.is_padded = not bool(self.prompt_mask_NP.all())
        self.masked_N1P = ~self.prompt_mask_NP[:, None, :]

    def to_slots(self, values_R: Tensor) -> Tensor:
        """[R, ...] to [N, S, ...]; empty slots repeat row 0."""
        slots = values_R if self.is_rectangle else values_R[self.row_of_slot]
        return slots.view(len(self.prompt_mask_NP), -1, *values_R.shape[1:])

    def to_rows(self, slots_NS: Tensor) -> Tensor:
        """[N, S, ...] back to [R, ...]."""
        flat = slots_NS.reshape(-1, *slots_NS.shape[2:])
        return flat if self.is_rectangle else flat[self.slot_of_R]
