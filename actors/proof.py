"""Proof before service: does this engine, with this adapter, compute what the learner computes?

The learner's manifest carries log-probs of a few fixed sequences. A worker scores the same sequences and serves the
version only if they agree. Pure: arrays in, a judgement out.

Tolerances by data types are in docs/experiments.md, with the differences they were derived from. What stays below
them is not seen: an adapter that moves log-probs by less than rounding does cannot be told from none.

Shape letters: P tokens of one probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Probe


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest mean and largest single |log-prob difference|, in nats, that is served."""

    mean: float
    max: float


EXACT = Tolerance(mean=1e-3, max=1e-2)
_ROUNDED = Tolerance(mean=0.1, max=1.5)
_MAX_PER_MEAN = 15.0

CLEARLY_CLOSER = 0.75
"""An engine whose mean difference to another version, or to the base model, is below this share of its difference to the
version it should be, runs the other one: rounding moves both differences alike, so this sees what a tolerance cannot."""


def tolerance_for(learner_dtype: str, engine_dtype: str, mean: float | None = None) -> Tolerance:
    """`mean` replaces the table's; the largest single difference follows in proportion."""
    if mean is not None:
        return Tolerance(mean, mean * _MAX_PER_MEAN)
    return EXACT if learner_dtype == engine_dtype == "float32" else _ROUNDED


@dataclass(frozen=True, slots=True)
class Difference:
    """Of |log p engine - log p learner| over the tokens of all probes; NaN where anything was not a number."""

    mean: float
    max: float

    def within(self, tolerance: Tolerance) -> bool:
        return self.mean <= tolerance.mean and self.max <= tolerance.max


def difference(probes: Sequence[Probe], scores: Sequence[NDArray[np.float32]]) -> Difference:
    """scores: the engine's log-probs [P] of each probe; entry 0 of each is left out."""
    return _gap(scores, [probe.logprobs_P for probe in probes])


def likely_cause(
    probes: Sequence[Probe],
    scores: Sequence[NDArray[np.float32]],
    others: Mapping[int, Sequence[Probe]],
) -> str:
    """Why the engine disagrees, for a person. others: the probes of other versions that this worker has seen."""
    engine, learner = _joined(scores), _joined([probe.logprobs_P for probe in probes])
    base = _joined([probe.base_logprobs_P for probe in probes])
    if not np.isfinite(engine).all():
        return "the engine's log-probs are not numbers: a damaged model or adapter"
    other = closer_to(probes, scores, others)
    if other is not None:
        return other
    effect, seen = learner - base, engine - base
    size = float(np.linalg.norm(effect) * np.linalg.norm(seen))
    if size > 0 and float(effect @ seen) / size > 0.7 and np.linalg.norm(seen) > 1.4 * np.linalg.norm(effect):
        return "the adapter's effect is there more than once: is it merged into the base model as well?"
    return "the base model's weights or data type differ from the learner's"


def closer_to(
    probes: Sequence[Probe], scores: Sequence[NDArray[np.float32]], others: Mapping[int, Sequence[Probe]]
) -> str | None:
    """What the engine runs instead, if that is clear; None if nothing is nearer than the version it should run."""
    limit = CLEARLY_CLOSER * difference(probes, scores).mean
    if _gap(scores, [probe.base_logprobs_P for probe in probes]).mean < limit:
        return "these are nearly the base model's log-probs: the adapter has no effect (tensor names, target modules, rank)"
    gaps = {
        v: _gap(scores, [p.logprobs_P for p in known]).mean for v, known in others.items() if len(known) == len(probes)
    }
    nearest = min(gaps, key=lambda version: gaps[version], default=None)
    if nearest is not None and gaps[nearest] < limit:
        return f"these are the log-probs of version {nearest}: another version's weights under this name"
    return None


def _gap(scores: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> Difference:
    gaps = np.abs(_joined(scores) - _joined(wanted))
    if not len(gaps):
        return Difference(0.0, 0.0)
    return Difference(float(gaps.mean()), float(gaps.max()))


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *(part[1:].astype(np.float64) for part in parts)])


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).mean()) if len(values) else 0.0
