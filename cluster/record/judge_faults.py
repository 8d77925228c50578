"""What verifiers, users' code and environments could not do, told to a person once per fault, not once per answer.

Groups that came back -> reasons and notes of their verdicts -> one incident for each fault that was not told yet
"""

from collections.abc import Collection, Iterator, Sequence

from cluster.record.events.workers import CouldNotBeJudged
from cluster.record.recorder import Recorder
from contracts.problem import Purpose
from contracts.rollout import RolloutGroup
from contracts.verdict import SCORER, Invalid, Scored
from loading.users_code import kind_of

MAX_TOLD = 20
"""Faults whose words differ each time must not fill the disk with incidents."""


class JudgeFaults:
    """Of one life of a run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._told: set[str] = set()

    def look_at(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            for what, words in _faults(group):
                if kind_of(words) not in self._told and len(self._told) < MAX_TOLD:
                    self._told.add(kind_of(words))
                    headline = f"problem {group.problem_id}: {what}: {words}"
                    self._recorder.event(CouldNotBeJudged(headline, group.worker_id))


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
