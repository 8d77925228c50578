"""What the learner asks of a policy, without knowing whether there is a model behind it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.adapter import LoraShape
from learner.packing import MicroBatch
from learner.token_table import TokenTable


class Policy(Protocol):
    """A frozen base with one trainable adapter (learner/policy.py, learner/scripted_policy.py).

    plain_rows: why each row carries its prompt although learner.shared_prefix is on; empty where it does not.
    """

    base_model: str
    lora: LoraShape
    shares_prompts: bool
    plain_rows: str

    @property
    def adapter_parameters(self) -> Mapping[str, nn.Parameter]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype_name(self) -> str: ...

    def score(self, batch: MicroBatch) -> tuple[TokenTable, Tensor, Tensor]:
        """The batch's policy tokens with log-prob and entropy of each, [N] float32; differentiable in the adapter."""

    def logprobs(self, batch: MicroBatch) -> Tensor:
        """[N] float32, without gradient."""

    def sequences_logprobs(self, sequences: Sequence[NDArray[np.int32]]) -> list[NDArray[np.float32]]:
        """[P] each, log p(token i | tokens before i); entry 0 is 0."""

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the adapter is off."""

    def computed_in(self, dtype_name: str) -> AbstractContextManager[None]:
        """Inside, log-probs are computed in another data type."""

    def amplified(self, factor: float) -> AbstractContextManager[None]:
        """Inside, the adapter's effect on every layer is multiplied by factor."""

    def relative_size(self) -> float:
        """The adapter against the weights that it adapts."""

    def merged_survival(self) -> float:
        """Share of the adapter that bfloat16 weights keep if it is merged into them."""

    def adapter_bytes(self) -> bytes:
        """The adapter as safetensors."""
