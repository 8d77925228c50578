"""The learner's side of the proof: the same probes read under every published version, twice.

    sequences -> read without adapter, once -> per version: with the adapter -> Probes
             -> short rows of mixed tokens -> per version: with the adapter amplified -> Amplified

Once in float32 and once in bfloat16: their difference is what rounding does to these weights on these tokens, which is what
an honest engine may differ by. The effect of a young adapter, and of a fault in any, is below that: so the adapter is also
read amplified, about half as large as the weights it adapts. Rounding is hardly larger there, and every fault is: the same bytes
through the same code of the engine (actors/proof.py; measured, docs/experiments.md).

Cost per version: two forwards of all probes and two of `ROWS` x `ROW_TOKENS` tokens.
"""

from collections.abc import Sequence
from math import log2

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Amplified, AmplifiedProbe, Probe, Reading
from learner.ports import Policy

AMPLIFIED_SIZE = 0.5
"""Of an amplified adapter against the weights it adapts (Policy.relative_size). Too small is lost in rounding, too large in
what saturates: docs/experiments.md has faults at 1/32, 1/8, 1/2 and 2."""

ROWS, ROW_TOKENS = 6, 24
"""Of the amplified copy. Rows are short and many because errors run on along a row: a token that rounding tips over moves all
that come after it, so one long row says little more than one token. The median over rows is not moved by one of them."""

_SEED = 21

MAX_AMPLIFICATION = 2.0**20

DTYPES = ("float32", "bfloat16")

Logprobs = list[NDArray[np.float32]]


class ProbeReader:
    """sequences: int32 [P] each, fixed for the run."""

    def __init__(self, policy: Policy, sequences: Sequence[NDArray[np.int32]]) -> None:
        self._policy, self._sequences, self._rows = policy, tuple(sequences), mixed_rows(sequences)
        with policy.reference():
            self._base = {dtype: self._read(dtype, self._sequences) for dtype in DTYPES}

    def read(self) -> tuple[tuple[Probe, ...], Amplified | None]:
        """Of the policy's present weights; None where there is no adapter to amplify yet, or nothing to read."""
        if not self._sequences:
            return (), None
        adapted = {dtype: self._read(dtype, self._sequences) for dtype in DTYPES}
        probes = tuple(
            Probe(tokens_P, *(Reading(self._base[d][i], adapted[d][i]) for d in DTYPES))
            for i, tokens_P in enumerate(self._sequences)
        )
        return probes, self._amplified(amplification(self._policy.relative_size()))

    def _amplified(self, factor: float | None) -> Amplified | None:
        if factor is None:
            return None
        with self._policy.amplified(factor):
            exact, rounded = (self._read(dtype, self._rows) for dtype in DTYPES)
        return Amplified(factor, tuple(AmplifiedProbe(*row) for row in zip(self._rows, exact, rounded, strict=True)))

    def _read(self, dtype: str, sequences: Sequence[NDArray[np.int32]]) -> Logprobs:
        with self._policy.computed_in(dtype):
            return self._policy.sequences_logprobs(sequences)


def mixed_rows(sequences: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """`ROWS` rows of tokens drawn from all sequences, none longer than the longest of them; the same for the same sequences."""
    if not sequences:
        return []
    length = min(ROW_TOKENS, max(len(tokens_P) for tokens_P in sequences))
    drawn = np.random.default_rng(_SEED).choice(np.concatenate(sequences), (ROWS, length))
    return list(drawn.astype(np.int32))


def amplification(relative_size: float) -> float | None:
    """The power of two that brings an adapter to about `AMPLIFIED_SIZE`, 1 where it is that large; None where there is none."""
    if relative_size <= 0:
        return None
    return float(min(MAX_AMPLIFICATION, max(1.0, 2.0 ** round(log2(AMPLIFIED_SIZE / relative_size)))))
