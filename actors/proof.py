"""Proof before service: does this engine, with this adapter, compute what the learner computes?

Pure: arrays in, a judgement out. Three questions, each asked of all tokens of all probes:

1. Level. Is the engine as near to the learner's float32 reading as rounding explains? The learner reads every version twice, in
   float32 and in bfloat16; the limit is a multiple of what the two differ by at that version, so it grows and shrinks
   with the rounding of these very weights. Where both sides are float32 the limit is `EXACT`.
2. Movement. How far did the engine's log-probs move for the adapter, against how far the learner's moved? The slope of the one
   on the other, with a confidence interval, is compared with that of the learner's own bfloat16 path (small effects are
   partly rounded away in every bfloat16 path). Where rounding hides the answer, nothing is refused for it.
3. Generation. Are the log-probs that the engine reports for tokens it generates those that it scores them with?

The effect of a young adapter, and of many a fault, is far below rounding and invisible to all three. So the level is also
asked of the adapter amplified until it is about half as large as the weights: same bytes, same code of the engine, alpha alone
differs, and there faults are several times rounding. It is asked row by row, of short rows of mixed tokens, and the median
row decides: an error that tips one token over moves every token after it, so rows tell more than as many tokens of one
sequence. What an engine does to the adapter itself but not to its amplified copy stays unseen below `TIMES_ROUNDING`.
Limits and their measurement: docs/experiments.md.

Shape letters: P tokens of one probe, N tokens of all probes, first ones left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.slope import Floats, Slope, slope_of
from contracts.adapter import Amplified, Probe

Scores = tuple[NDArray[np.float32], ...]
"""An engine's log-probs [P] of each probe; entry 0 of each is left out."""

EXACT = 1e-3
"""Largest mean |difference| in nats that is served where rounding is that of float32; honest ones were below 1e-5."""

TIMES_ROUNDING_BASE = 2.5
"""An engine's largest mean |difference| to the float32 reading without any adapter, in units of what the learner's bfloat16
reading differs by; honest ones were at 0.8 to 1.04 in nine runs' readings."""

TIMES_ROUNDING = 5.0
"""The same with the adapter. Tokens of one text err together, so the ratio of the two means varies: honest ones were at 3.0
at most in 436 proofs."""

TIMES_ROUNDING_AMPLIFIED = 1.6
"""The same with the adapter amplified, of the median row: honest ones were at 1.34 at most in 348 proofs, faults of seven kinds
at 1.78 at least in 308."""

TIMES_ROUNDING_GENERATED = 6.0
"""Of the mean |difference| between what an engine reports and what it scores: both are rounded, and tokens are few."""

LARGEST_PER_MEAN = 25.0
"""A single token's |difference|, in units of the mean's limit; honest ones stayed below 9."""

SLOPE_OFF = 0.06
"""How far the slope of the engine's movement on the learner's may lie, with confidence, from that of the learner's own
bfloat16 path."""

UNMOVED = 0.25
"""An engine whose log-probs moved by less than this share of what the learner's moved still runs what it ran before. Both
sides of the comparison are rounded alike, so this sees steps that no tolerance can."""

_NO_STEP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class EngineScores:
    """What an engine makes of the probes: without the adapter, with it, and of the probes that are read so, amplified."""

    base: Scores
    adapted: Scores
    amplified: Scores = ()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A version that this engine has proven: the learner's probes and the engine's own scores of them."""

    probes: Sequence[Probe]
    scores: Scores


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """Log-probs of generated tokens as reported with them, and as the engine scores them afterwards."""

    reported_T: NDArray[np.float32]
    scored_T: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The learner's log-probs of all tokens under one strength of the adapter, computed in float32 and in bfloat16."""

    exact_N: Floats
    rounded_N: Floats


class OtherWeights(str):
    """A verdict on which weights the engine holds, that no tolerance for rounding would answer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Judge:
    """learner_dtype, engine_dtype: of weights and activations. rounds_small_updates: the engine loses part of a small
    update to rounding (merged weights, vLLM in bfloat16; actors/config.py has the same name). tolerance: nats; replaces
    questions 1 and 2 by one: is the mean |difference| to the learner's reading at most this?"""

    learner_dtype: str
    engine_dtype: str
    rounds_small_updates: bool = False
    tolerance: float | None = None

    @property
    def exact(self) -> bool:
        """Neither side rounds: a checkpoint in float32 has other weights once either side reads it in bfloat16."""
        return self.learner_dtype == self.engine_dtype == "float32"

    def verdict(
        self,
        probes: Sequence[Probe],
        scores: EngineScores,
        generated: Sequence[Generated] = (),
        known: Mapping[int, Known] | None = None,
        amplified: Amplified | None = None,
    ) -> str | None:
        """None if the engine may serve this version, else what was found and its likely cause, for a person (OtherWeights
        where it is not a matter of rounding).

        known: other versions that this engine has proven. amplified: what `scores.amplified` are scores of.
        """
        if not probes:
            return None
        every = [*scores.base, *scores.adapted, *scores.amplified, *(g.reported_T for g in generated)]
        if not all(np.isfinite(part).all() for part in every):
            return OtherWeights("the engine's log-probs are not numbers: a damaged model or adapter")
        adapted = _readings(probes, "adapted_P")
        limit = self.tolerance or self._limit(adapted, TIMES_ROUNDING_GENERATED)
        return (
            _still_another(probes, scores, known or {})
            or (self._by_tolerance(adapted, scores) if self.tolerance else self._by_rounding(probes, scores, amplified))
            or _generates(generated, limit)
        )

    def levels(
        self, probes: Sequence[Probe], scores: EngineScores, amplified: Amplified | None = None
    ) -> dict[str, float]:
        """Mean |difference| to the learner's float32 reading in units of rounding, by strength of the adapter: for reports."""
        found = {}
        for strength, of_engine in {"base_P": scores.base, "adapted_P": scores.adapted}.items():
            learner = _readings(probes, strength)
            gap, rounding = (_mean(np.abs(n - learner.exact_N)) for n in (_joined(of_engine), learner.rounded_N))
            found[strength] = gap / max(rounding, EXACT)
        return found if amplified is None else found | {"amplified": median_row(amplified, scores.amplified)}

    def _by_tolerance(self, adapted: Readings, scores: EngineScores) -> str | None:
        assert self.tolerance is not None
        found = _beyond(np.abs(_joined(scores.adapted) - adapted.exact_N), self.tolerance)
        return None if found is None else f"{found} (actors.probe_tolerance)"

    def _by_rounding(self, probes: Sequence[Probe], scores: EngineScores, amplified: Amplified | None) -> str | None:
        base, adapted = _readings(probes, "base_P"), _readings(probes, "adapted_P")
        found = self._level(base, scores.base, TIMES_ROUNDING_BASE)
        if found is not None:
            return OtherWeights(
                f"without any adapter {found}: the base model's weights or data type differ from the learner's"
            )
        found = self._slope(base, adapted, scores)
        if found is not None:
            return found
        found = self._level(adapted, scores.adapted, TIMES_ROUNDING)
        if found is not None:
            return f"{found}: {_PARTLY}"
        return None if amplified is None else self._amplified(amplified, scores.amplified)

    def _amplified(self, learner: Amplified, scores: Scores) -> str | None:
        name = f"with the adapter amplified {learner.factor:g} times"
        if self.exact:
            exact_N = _joined([probe.float32_P for probe in learner.probes])
            found = _beyond(np.abs(_joined(scores) - exact_N), EXACT)
            return None if found is None else f"{name} {found}: {_PARTLY}"
        times = median_row(learner, scores)
        if times <= TIMES_ROUNDING_AMPLIFIED:
            return None
        return (
            f"{name} log-probs differ by {times:.2f} times what rounding explains, limit {TIMES_ROUNDING_AMPLIFIED:g} "
            f"(median of {len(scores)} sequences): {_PARTLY}"
        )

    def _level(self, learner: Readings, scores: Scores, times: float) -> str | None:
        return _beyond(np.abs(_joined(scores) - learner.exact_N), self._limit(learner, times))

    def _limit(self, learner: Readings, times: float) -> float:
        """Of the mean |difference|, in nats."""
        if self.exact:
            return EXACT
        return EXACT + times * _mean(np.abs(learner.rounded_N - learner.exact_N))

    def _slope(self, base: Readings, adapted: Readings, scores: EngineScores) -> str | None:
        moved_N = adapted.exact_N - base.exact_N
        found = slope_of(_joined(scores.adapted) - _joined(scores.base), moved_N)
        own = Slope(1.0, 0.0)
        if not self.exact:
            own = slope_of(adapted.rounded_N - base.rounded_N, moved_N)
        # Weights that the adapter is merged into round small updates away, more than any path does.
        loses = self.rounds_small_updates and self.engine_dtype != "float32"
        if found.lowest > max(1.0, own.highest) + SLOPE_OFF:
            cause = "its effect is there more than once, or scaled up: is it merged into the base model as well?"
        elif found.highest < min(1.0, own.lowest) - SLOPE_OFF and not loses:
            cause = _PARTLY
        else:
            return None
        return (
            f"its log-probs moved {found.value:.2f} (+- {found.half_width:.2f}) times as far as the learner's: {cause}"
        )


_PARTLY = "the adapter is scaled, altered, or not applied in some of its modules or layers"


def _readings(probes: Sequence[Probe], strength: str) -> Readings:
    """strength: a field of `Reading`."""
    exact, rounded = (
        [getattr(r, strength) for r in rs] for rs in zip(*((p.float32, p.bfloat16) for p in probes), strict=True)
    )
    return Readings(_joined(exact), _joined(rounded))


def median_row(learner: Amplified, scores: Scores) -> float:
    """Over the rows, the median of the engine's mean |difference| to the float32 reading in units of the bfloat16 one's."""
    gaps_R, rounding_R = (
        np.array(
            [
                _mean(np.abs(_joined([row]) - _joined([probe.float32_P])))
                for row, probe in zip(rows, learner.probes, strict=True)
            ]
        )
        for rows in (scores, [probe.bfloat16_P for probe in learner.probes])
    )
    return float(np.median(gaps_R / np.maximum(rounding_R, EXACT)))


def _still_another(probes: Sequence[Probe], scores: EngineScores, known: Mapping[int, Known]) -> str | None:
    """Another version, or the base model, where the engine's own numbers hardly moved since."""
    now_N, learner_N = _joined(scores.adapted), _readings(probes, "adapted_P").exact_N
    if _mean(np.abs(now_N - learner_N)) <= EXACT:
        return None
    base_N = _readings(probes, "base_P").exact_N
    others = [("the base model: the adapter has no effect", _joined(scores.base), base_N)]
    for version, other in sorted(known.items(), reverse=True):
        if len(other.probes) == len(probes):
            name = f"version {version}: another version's weights under this name"
            others.append((name, _joined(other.scores), _readings(other.probes, "adapted_P").exact_N))
    for name, engine_before_N, learner_before_N in others:
        step = _mean(np.abs(learner_N - learner_before_N))
        if step > _NO_STEP and _mean(np.abs(now_N - engine_before_N)) < UNMOVED * step:
            return OtherWeights(f"these are the log-probs of {name} (tensor names, target modules, a cache)")
    return None


def _generates(generated: Sequence[Generated], limit: float) -> str | None:
    if not generated:
        return None
    reported_N, scored_N = (
        np.concatenate(parts).astype(np.float64)
        for parts in zip(*((g.reported_T, g.scored_T) for g in generated), strict=True)
    )
    found = _beyond(np.abs(reported_N - scored_N), limit)
    if found is None:
        return None
    return (
        f"of tokens that it generates, what it reports and what it scores disagree, {found}: decoding (cache, masks, "
        "attention, rows of unequal length) computes something else than a plain forward"
    )


def _beyond(gaps_N: Floats, limit: float) -> str | None:
    mean, largest = _mean(gaps_N), float(gaps_N.max(initial=0.0))
    if mean <= limit and largest <= LARGEST_PER_MEAN * limit:
        return None
    limits = f"limits {limit:.4f} and {LARGEST_PER_MEAN * limit:.4f}"
    return f"log-probs differ by {mean:.4f} on average and {largest:.4f} at most, {limits}"


def _joined(parts: Sequence[NDArray[np.float32]]) -> Floats:
    return np.concatenate([np.zeros(0), *(part[1:].astype(np.float64) for part in parts)])


def _mean(values_N: Floats) -> float:
    return float(values_N.mean()) if len(values_N) else 0.0
