"""What verifiers, users' code and environments could not do, told to a person once per fault, not once per answer.

Groups that came back -> reasons and notes of their verdicts -> one incident for each fault that was not told yet
                      -> shares of rollouts, for each update's line of metrics
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.record.recorder import Recorder
from contracts.problem import Purpose
from contracts.rollout import RolloutGroup
from contracts.verdict import SCORER, Invalid, Scored
from tasks.users_code import kind_of

MAX_TOLD = 20
"""Faults whose words differ each time must not fill the disk with incidents."""


@dataclass(frozen=True, slots=True)
class JudgedShares:
    """Of the training rollouts that were judged since the last time. errors: share over which the scorer (SCORER) or a
    reward part failed, by name; invalid: share that nobody could judge."""

    rollouts: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    invalid: float = 0.0


class JudgeFaults:
    """Of one life of a run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: set[str] = set()
        self._judged: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def look_at(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            self._count(group)
            for what, words in _faults(group):
                if kind_of(words) not in self._told and len(self._told) < MAX_TOLD:
                    self._told.add(kind_of(words))
                    self._recorder.incident(
                        "could_not_be_judged", f"problem {group.problem_id}: {what}: {words}", worker=group.worker_id
                    )

    def take_shares(self) -> JudgedShares:
        """Since the last time."""
        judged, failed = self._judged, self._failed
        self._judged, self._failed = Counter(), Counter()
        n = judged.total()
        errors = {name: count / n for name, count in sorted(failed.items())}
        return JudgedShares(n, errors, judged["invalid"] / n) if n else JudgedShares()

    def _count(self, group: RolloutGroup) -> None:
        if group.purpose is not Purpose.TRAIN:
            return
        for verdict in (rollout.verdict for rollout in group.rollouts if rollout.finish_reason.trainable):
            self._judged["invalid" if isinstance(verdict, Invalid) else "scored"] += 1
            self._failed.update(verdict.failed if isinstance(verdict, Scored) else ())


def _faults(group: RolloutGroup) -> Iterator[tuple[str, str]]:
    """Reasons of training alone: what an evaluation cannot judge counts as wrong, and `lease_outcomes` tells it."""
    for reason in _reasons(group) if group.purpose is Purpose.TRAIN else ():
        yield "an answer could not be judged and is not trained on", reason
    for rollout in group.rollouts:
        if isinstance(rollout.verdict, Scored) and rollout.verdict.note:
            yield _meaning(rollout.verdict.failed), rollout.verdict.note


def _meaning(failed: Collection[str]) -> str:
    if SCORER in failed:
        return "the scorer failed over an answer, which counts as wrong"
    return "a reward part failed over an answer and counts 0 there, right or wrong as the answer is"


def _reasons(group: RolloutGroup) -> Iterator[str]:
    """Not of what the engine did not finish, which is told elsewhere."""
    for rollout in group.rollouts:
        if isinstance(rollout.verdict, Invalid) and rollout.finish_reason.trainable:
            yield rollout.verdict.reason


def first_reason(group: RolloutGroup) -> str:
    """Why an answer of the group could not be judged; "" where all of them were, or were not finished."""
    return next(_reasons(group), "")
