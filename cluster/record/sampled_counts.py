"""What the training rollouts of a while amount to, for the next line of metrics: counted as they come, and again from the log.

    groups that came back --add--> SampledCounts --> tokens, JudgedShares of a line
    log: SAMPLED frames --add--+
         COUNTED frames -------+  what no SAMPLED frame tells: failures of scorer and reward parts, groups that were dropped

Pure.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from contracts.problem import Purpose
from contracts.rollout import RolloutGroup
from contracts.verdict import Invalid, Scored
from storage.bounded_json import Count, Stored


@dataclass(frozen=True, slots=True)
class JudgedShares:
    """Of the training rollouts that were judged since the last time. errors: share over which the scorer (SCORER) or a
    reward part failed, by name; invalid: share that nobody could judge."""

    rollouts: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    invalid: float = 0.0


@dataclass(slots=True)
class SampledCounts:
    """tokens: of all rollouts. scored, invalid: verdicts of those that the engine finished. failed: rollouts, by what failed
    over them."""

    tokens: int = 0
    scored: int = 0
    invalid: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.tokens or self.scored or self.invalid or self.failed)

    def add(self, group: RolloutGroup) -> None:
        """Evaluations are counted elsewhere."""
        if group.purpose is not Purpose.TRAIN:
            return
        self.tokens += group.num_tokens
        for verdict in (rollout.verdict for rollout in group.rollouts if rollout.finish_reason.trainable):
            self.invalid += isinstance(verdict, Invalid)
            self.scored += isinstance(verdict, Scored)
            self.failed.update(verdict.failed if isinstance(verdict, Scored) else ())

    def merge(self, other: "SampledCounts") -> None:
        self.tokens += other.tokens
        self.scored += other.scored
        self.invalid += other.invalid
        self.failed.update(other.failed)

    def shares(self) -> JudgedShares:
        n = self.scored + self.invalid
        errors = {name: count / n for name, count in sorted(self.failed.items())} if n else {}
        return JudgedShares(n, errors, self.invalid / n) if n else JudgedShares()

    def stored(self) -> "StoredCounts":
        """As they are now: these go on counting."""
        return StoredCounts(tokens=self.tokens, scored=self.scored, invalid=self.invalid, failed=dict(self.failed))


class StoredCounts(Stored):
    """The same in a frame of the log and in a checkpoint."""

    tokens: Count = 0
    scored: Count = 0
    invalid: Count = 0
    failed: dict[str, Count] = Field(default_factory=dict, max_length=1000)

    def counts(self) -> SampledCounts:
        return SampledCounts(self.tokens, self.scored, self.invalid, Counter(self.failed))


def beyond_the_frames(groups: Sequence[RolloutGroup], kept: Collection[RolloutGroup]) -> SampledCounts:
    """What SAMPLED frames of the kept groups do not tell of all of them."""
    told = {id(group) for group in kept}
    counts = SampledCounts()
    for group in groups:
        one = SampledCounts()
        one.add(group)
        counts.merge(SampledCounts(failed=one.failed) if id(group) in told else one)
    return counts
