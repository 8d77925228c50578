"""Rollouts and groups: what a worker returns, what memory scores, what the learner trains on.

Token ids and log-probs from the engine are the record. `text` is derived for verifiers, memory and
people, and is never tokenised back.

Shape letters: P prompt tokens, T tokens after the prompt (all turns), G rollouts of a group, U turns.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from contracts.problem import Purpose
from contracts.verdict import Invalid, Scored, Verdict


class FinishReason(StrEnum):
    """Why a rollout ended. Closed: an engine's unknown reason is an `ERROR`, never a guess."""

    STOP = "stop"
    LENGTH = "length"
    TIMEOUT = "timeout"
    ABORT = "abort"
    OVERLONG = "overlong"  # the engine has no room for the answer that was asked for
    ERROR = "error"

    @property
    def trainable(self) -> bool:
        return self in (FinishReason.STOP, FinishReason.LENGTH)

    @property
    def worth_another_try(self) -> bool:
        """The engine's doing, not the problem's or the policy's."""
        return self in (FinishReason.ABORT, FinishReason.ERROR)


class TurnOutcome(StrEnum):
    """What the environment said of one turn."""

    CONTINUE = "continue"
    DONE = "done"
    FAULT = "fault"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One sampled answer, one or more turns.

    rollout_id: "<lease id>/<attempt>/<sample index>", unique in the run.
    tokens_T: int32, everything after the prompt: what the policy wrote and what the environment
        inserted between turns, end-of-sequence token included where it was sampled.
    logprobs_T: float32, the engine's log-prob of each policy token at the sampling temperature
        (greedy: at temperature 1); 0 where the mask is off.
    policy_mask_T: bool, true where the policy wrote the token.
    turn_ends_U: int32, exclusive end of each turn's policy tokens in tokens_T.
    outcomes: one per turn.
    seed: what the engine's random stream for this rollout was derived from.
    """

    rollout_id: str
    tokens_T: NDArray[np.int32]
    logprobs_T: NDArray[np.float32]
    policy_mask_T: NDArray[np.bool_]
    turn_ends_U: NDArray[np.int32]
    outcomes: tuple[TurnOutcome, ...]
    finish_reason: FinishReason
    text: str
    verdict: Verdict
    seed: int

    def __post_init__(self) -> None:
        length = len(self.tokens_T)
        if len(self.logprobs_T) != length or len(self.policy_mask_T) != length:
            raise ValueError(
                f"rollout {self.rollout_id}: {length} tokens, {len(self.logprobs_T)} log-probs, "
                f"{len(self.policy_mask_T)} mask entries; the three must be equally long"
            )
        if len(self.turn_ends_U) != len(self.outcomes):
            raise ValueError(
                f"rollout {self.rollout_id}: {len(self.turn_ends_U)} turn ends, {len(self.outcomes)} outcomes"
            )

    @property
    def num_policy_tokens(self) -> int:
        return int(self.policy_mask_T.sum())

    @property
    def trainable(self) -> bool:
        """Ended by itself or at the length limit, was judged, and the policy wrote something."""
        return self.finish_reason.trainable and isinstance(self.verdict, Scored) and self.num_policy_tokens > 0

    @property
    def task_reward(self) -> float:
        """Raises ValueError for an invalid verdict: an error never becomes a number."""
        if isinstance(self.verdict, Invalid):
            raise ValueError(f"rollout {self.rollout_id} has no reward: {self.verdict.reason}")
        return self.verdict.value

    @property
    def correct(self) -> bool:
        return isinstance(self.verdict, Scored) and self.verdict.correct


@dataclass(frozen=True, slots=True, eq=False)
class RolloutGroup:
    """The G rollouts of one problem, all sampled by one policy version.

    prompt_P: int32, shared by every rollout; the learner runs it once per group.
    started_s, finished_s: seconds on the worker's wall clock, first token and return.
    """

    lease_id: int
    problem_id: str
    question: str
    prompt_P: NDArray[np.int32]
    rollouts: tuple[Rollout, ...]
    policy_version: int
    purpose: Purpose
    temperature: float
    worker_id: str
    attempt: int
    started_s: float
    finished_s: float

    @property
    def group_id(self) -> str:
        return f"{self.lease_id}/{self.attempt}"

    @property
    def trainable_rollouts(self) -> tuple[Rollout, ...]:
        return tuple(rollout for rollout in self.rollouts if rollout.trainable)

    @property
    def num_tokens(self) -> int:
        return sum(len(rollout.tokens_T) for rollout in self.rollouts)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, what the byte-bounded rollout buffer counts."""
        per_rollout = sum(
            r.tokens_T.nbytes + r.logprobs_T.nbytes + r.policy_mask_T.nbytes + len(r.text.encode())
            for r in self.rollouts
        )
        return self.prompt_P.nbytes + per_rollout


class BonusStage(StrEnum):
    """Where memory's bonus joins the reward (docs/algorithms.md, Stage)."""

    BEFORE_NORMALISATION = "before_normalisation"
    AFTER_NORMALISATION = "after_normalisation"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An episode that a read returned, for transcripts and reports. cosine: between the two questions."""

    rollout_id: str
    question: str
    response: str
    correct: bool
    cosine: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoredGroup:
    """A group with its intrinsic rewards.

    exploit_G, explore_G: float32 in [0, 1], normalised intrinsic rewards, 0 for rollouts that memory
        did not score (untrainable) and for late groups under the `zero` policy.
    bonus_G: float32, what memory adds: weighted, scaled, decayed, annealed. The reward is
        task reward + bonus (BEFORE_NORMALISATION), or the bonus joins the advantage after it. Which rollouts it is paid
        to, and what it becomes without a task signal, is the learner's (bonus_rule.py).
    memory_version: the version of memory that the whole group was read against; -1 with memory off or late.
    late: the group missed the memory deadline and was treated by the late policy.
    """

    group: RolloutGroup
    exploit_G: NDArray[np.float32]
    explore_G: NDArray[np.float32]
    bonus_G: NDArray[np.float32]
    bonus_stage: BonusStage
    memory_version: int
    late: bool = False
    neighbours: tuple[Neighbour, ...] = field(default=())

    def __post_init__(self) -> None:
        size = len(self.group.rollouts)
        for name in ("exploit_G", "explore_G", "bonus_G"):
            values = getattr(self, name)
            if len(values) != size:
                raise ValueError(f"group {self.group.group_id}: {name} has {len(values)} values for {size} rollouts")
            if not np.isfinite(values).all():
                raise ValueError(f"group {self.group.group_id}: {name} is not finite: {values.tolist()}")

    @classmethod
    def without_bonus(cls, group: RolloutGroup, *, late: bool = False) -> "ScoredGroup":
        """Memory off, or late under the `zero` policy: the task reward alone."""
        zeros = np.zeros(len(group.rollouts), np.float32)
        return cls(group, zeros, zeros, zeros, BonusStage.BEFORE_NORMALISATION, memory_version=-1, late=late)
