"""The learner's side of the proof: the same probes read under every published version, twice.

    sequences -> read without adapter, once -> per version: with the adapter, and with the adapter amplified -> Probes

Once in float32 and once in bfloat16: their difference is what rounding does to these weights on these tokens, which is what
an honest engine may differ by. The effect of a young adapter, and of a fault in any, is below that: so the adapter is also
read amplified, about half as large as the weights it adapts. Rounding is hardly larger there, and every fault is: the same bytes
through the same code of the engine (actors/proof.py; measured, docs/experiments.md).

Cost per version: two forwards of all probes and two of all but the longest.
"""

from collections.abc import Mapping, Sequence
from math import log2

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Probe, Reading
from learner.policy import LoraPolicy

AMPLIFIED_SIZE = 0.125
"""Of an amplified adapter against the weights it adapts (LoraPolicy.relative_size). Of a first version at learning rate 5e-4, one
layer of 30 left out made a difference of 1.3, 4.6, 6.4, 7.5 and 1.2 times rounding at sizes 1/256, 1/64, 1/16, 1/8 and 1/2, and
20 % noise on B 1.0, 1.1, 2.4, 6.6 and 10: too small is lost in rounding, too large in what saturates."""

MAX_AMPLIFICATION = 2.0**20

DTYPES = ("float32", "bfloat16")

Logprobs = list[NDArray[np.float32]]


class ProbeReader:
    """sequences: int32 [P] each, fixed for the run."""

    def __init__(self, policy: LoraPolicy, sequences: Sequence[NDArray[np.int32]]) -> None:
        self._policy, self._sequences = policy, tuple(sequences)
        longest = max(self._sequences, key=len, default=None)
        self._amplified = tuple(s for s in self._sequences if s is not longest or len(self._sequences) == 1)
        with policy.reference():
            self._base = {dtype: self._read(dtype, self._sequences) for dtype in DTYPES}

    def probes(self) -> tuple[Probe, ...]:
        """Of the policy's present weights."""
        if not self._sequences:
            return ()
        adapted = {dtype: self._read(dtype, self._sequences) for dtype in DTYPES}
        factor = amplification(self._policy.relative_size())
        amplified: Mapping[str, Logprobs] = {}
        if factor > 1:
            with self._policy.amplified(factor):
                amplified = {dtype: self._read(dtype, self._amplified) for dtype in DTYPES}
        found = []
        for i, tokens_P in enumerate(self._sequences):
            at = next((j for j, s in enumerate(self._amplified) if s is tokens_P), None) if amplified else None
            exact, rounded = (
                Reading(self._base[d][i], adapted[d][i], None if at is None else amplified[d][at]) for d in DTYPES
            )
            found.append(Probe(tokens_P, exact, rounded, factor))
        return tuple(found)

    def _read(self, dtype: str, sequences: Sequence[NDArray[np.int32]]) -> Logprobs:
        with self._policy.computed_in(dtype):
            return self._policy.sequences_logprobs(sequences)


def amplification(relative_size: float) -> float:
    """The power of two that brings an adapter to about `AMPLIFIED_SIZE`; 1 where it is that large, or there is none."""
    if not 0 < relative_size < AMPLIFIED_SIZE:
        return 1.0
    return float(min(MAX_AMPLIFICATION, 2.0 ** round(log2(AMPLIFIED_SIZE / relative_size))))
