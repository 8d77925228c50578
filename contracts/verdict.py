"""What a verifier says of one answer: a number with its parts, or that it could not tell.

An error of the task never becomes a number: where the reference cannot be read, or the verifier breaks over it, the
verdict is `Invalid`, and the rollout is never trained on. What an answer alone makes go wrong is a wrong answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SCORER = "scorer"
"""In `Scored.failed`: what decides whether an answer is right, memr's own or the user's."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A task reward.

    value: the weighted sum of `parts`, the scalar the learner sees.
    parts: weighted value by part name (`correctness`, `format`, ...); they add up to `value`.
    correct: whether the final answer is right; memory files the episode under success or failure by it.
    note: what a person should hear of it once ("" for nothing); not part of the record.
    failed: what failed over this answer, SCORER (the answer counts as wrong) or names of parts (each counts 0, and whether
    the answer is right is what the scorer said); not part of the record.
    """

    value: float
    correct: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    note: str = field(default="", compare=False)
    failed: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Invalid:
    """The answer could not be judged; `reason` is counted and shown."""

    reason: str


Verdict = Scored | Invalid
