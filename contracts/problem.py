"""One task item, and what the controller hands to a worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypedDict


class ChatMessage(TypedDict):
    """One message of a chat, in the form tokenizers' chat templates take."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One task item.

    problem_id: stable across processes, runs and machines; the ledger and memory key on it.
    question: the raw question, memory's query key (docs/algorithms.md, section 2).
    answer: reference answer in the task's own form; never shown to the policy.
    messages: the chat that the tokenizer's template turns into the prompt.
    metadata: JSON-encoded extras that the task's own scorer needs ("" when none).
    """

    problem_id: str
    question: str
    answer: str
    messages: tuple[ChatMessage, ...]
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a lease's rollouts are sampled. Top-p, top-k and min-p do not exist here: the learner could
    not account for them.

    temperature: > 0 for sampling; 0 means greedy (evaluation only).
    max_new_tokens: per rollout, all turns together.
    """

    temperature: float
    max_new_tokens: int


class Purpose(StrEnum):
    """What a lease's rollouts are for."""

    TRAIN = "train"
    EVAL = "eval"


@dataclass(frozen=True, slots=True)
class Lease:
    """A problem handed to a worker, with a deadline.

    lease_id: serial number of the issue, unique in the run; a problem that returns in a later epoch
        gets a new one. Training leases count 0, 1, 2, ...; evaluation leases are negative.
    policy_version: training: at least this version (a worker uses the newest it holds);
        evaluation: exactly this one.
    run_seed, attempt: with problem id, lease id and sample index they give each rollout's seed.
    deadline_s: seconds the worker may take from receipt; what is unfinished then is closed or failed.
    """

    lease_id: int
    problem: Problem
    num_rollouts: int
    sampling: Sampling
    purpose: Purpose
    policy_version: int
    run_seed: int
    attempt: int
    deadline_s: float
    tags: Mapping[str, str] = field(default_factory=dict)
