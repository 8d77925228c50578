"""What an update saw, token by token, collected over micro-batches for its report.

Shape letters: N policy tokens of one micro-batch.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learner.importance import Mismatch, mismatch
from learner.losses import TokenWeights
from learner.token_table import TokenTable


@dataclass(slots=True, eq=False)
class UpdateRecord:
    """Columns of equal length, one list entry per micro-batch. loss: the sum that was differentiated."""

    learner_logprob: list[NDArray[np.float32]] = field(default_factory=list)
    engine_logprob: list[NDArray[np.float32]] = field(default_factory=list)
    lag: list[NDArray[np.int64]] = field(default_factory=list)
    entropy: list[NDArray[np.float32]] = field(default_factory=list)
    kl: list[NDArray[np.float32]] = field(default_factory=list)
    clipped: list[NDArray[np.bool_]] = field(default_factory=list)
    truncated: list[NDArray[np.bool_]] = field(default_factory=list)
    loss: float = 0.0
    has_live_token: bool = False

    def add(
        self,
        table: TokenTable,
        logprob_N: Tensor,
        entropy_N: Tensor,
        kl_N: Tensor,
        weights: TokenWeights,
        loss: float,
    ) -> None:
        self.learner_logprob.append(_array(logprob_N))
        self.engine_logprob.append(_array(table.engine_logprob_N))
        self.lag.append(_array(table.lag_N))
        self.entropy.append(_array(entropy_N))
        self.kl.append(_array(kl_N))
        self.clipped.append(_array(weights.clipped_N))
        self.truncated.append(_array(weights.truncated_N))
        self.loss += loss
        self.has_live_token |= bool(((weights.weight_N != 0) & (table.advantage_N != 0)).any())

    def mismatch(self) -> Mismatch:
        if not self.lag:
            return Mismatch(0.0, 0.0, 0.0, at_lag_0=False)
        learner_N, engine_N = np.concatenate(self.learner_logprob), np.concatenate(self.engine_logprob)
        return mismatch(learner_N, engine_N, np.concatenate(self.lag))

    def mean(self, name: str) -> float:
        """Over all tokens that ran; 0 where none did."""
        parts: list[NDArray[np.float32]] = getattr(self, name)
        return float(np.concatenate(parts).mean(dtype=np.float64)) if parts else 0.0


def _array(values: Tensor) -> NDArray:  # type: ignore[type-arg]
    return values.detach().cpu().numpy()
