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

CLEARLY_CLOSER = 0.5
"""Of the mean difference to the version that an engine should run: below this share, it runs what it is closer to."""

UNMOVED = 0.25
"""An engine whose log-probs moved by less than this share of what the learner's moved since another version still runs
the other one. Both sides of the comparison are rounded alike, so this sees steps that a tolerance cannot."""

_NO_STEP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Proven:
    """A version that this engine has proven: the learner's probes and the engine's own scores of them."""

    probes: tuple[Probe, ...]
    scores: tuple[NDArray[np.float32], ...]


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


def judge(
    probes: Sequence[Probe],
    scores: Sequence[NDArray[np.float32]],
    tolerance: Tolerance,
    earlier: Mapping[int, Proven],
) -> str | None:
    """None if the engine may serve this version, else the likely cause, for a person.

    earlier: other versions that this engine has proven.
    """
    other = _runs_instead(probes, scores, earlier)
    if other is not None:
        return other
    return None if difference(probes, scores).within(tolerance) else _other_cause(probes, scores)


def _runs_instead(
    probes: Sequence[Probe], scores: Sequence[NDArray[np.float32]], earlier: Mapping[int, Proven]
) -> str | None:
    """Another version, or the base model, if the numbers say so clearly."""
    learner = [probe.logprobs_P for probe in probes]
    own = _gap(scores, learner).mean
    for version, known in sorted(earlier.items(), reverse=True):
        if len(known.probes) != len(probes):
            continue
        step = _gap(learner, [probe.logprobs_P for probe in known.probes]).mean
        unmoved = step > _NO_STEP and _gap(scores, known.scores).mean < UNMOVED * step
        if unmoved and own > EXACT.mean:
            return f"these are the log-probs of version {version}: another version's weights under this name"
    base = _gap(scores, [probe.base_logprobs_P for probe in probes]).mean
    if own > EXACT.mean and base < CLEARLY_CLOSER * own:
        return "these are nearly the base model's log-probs: the adapter has no effect (tensor names, target modules, rank)"
    return None


def _other_cause(probes: Sequence[Probe], scores: Sequence[NDArray[np.float32]]) -> str:
    engine, learner = _joined(scores), _joined([probe.logprobs_P for probe in probes])
    base = _joined([probe.base_logprobs_P for probe in probes])
    if not np.isfinite(engine).all():
        return "the engine's log-probs are not numbers: a damaged model or adapter"
    effect, seen = learner - base, engine - base
    size = float(np.linalg.norm(effect) * np.linalg.norm(seen))
    if size > 0 and float(effect @ seen) / size > 0.7 and np.linalg.norm(seen) > 1.4 * np.linalg.norm(effect):
        return "the adapter's effect is there more than once: is it merged into the base model as well?"
    return "the base model's weights or data type differ from the learner's"


def _gap(scores: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> Difference:
    gaps = np.abs(_joined(scores) - _joined(wanted))
    if not len(gaps):
        return Difference(0.0, 0.0)
    return Difference(float(gaps.mean()), float(gaps.max()))


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros(0), *(part[1:].astype(np.float64) for part in parts)])
