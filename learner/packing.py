"""Credited groups to micro-batches under a token budget. Pure: no torch.

A row is one rollout as the forward needs it: cut after its last policy token (what follows is never predicted).
Groups go together so that their prompt runs once; the longest come first, so memory peaks at once and neighbours
are about equally long. A group larger than the budget is split and pays its prompt again in each part; a single
row larger than the budget is a micro-batch of its own.

Shape letters: P prompt tokens, T tokens after the prompt, R rows of a micro-batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.credit import CreditedGroup


@dataclass(frozen=True, slots=True, eq=False)
class TrainRow:
    """One rollout in the loss.

    prompt_P: shared (the same object) by the rows of a group. tokens_T: int32, ends with a policy token.
    engine_logprobs_T: float32. policy_mask_T: bool. temperature: what it was sampled at (1 for greedy).
    """

    prompt_P: NDArray[np.int32]
    tokens_T: NDArray[np.int32]
    engine_logprobs_T: NDArray[np.float32]
    policy_mask_T: NDArray[np.bool_]
    advantage: float
    temperature: float
    lag: int

    @property
    def num_inputs(self) -> int:
        """Tokens after the prompt that the forward reads; the last one is only predicted."""
        return len(self.tokens_T) - 1

    @property
    def num_with_prompt(self) -> int:
        return len(self.prompt_P) + self.num_inputs


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows of one forward and backward; rows of one prompt are adjacent. prompt_of_R: index into `prompts`."""

    prompts: tuple[NDArray[np.int32], ...]
    prompt_of_R: NDArray[np.int64]
    rows: tuple[TrainRow, ...]


def rows_of(credited: CreditedGroup, policy_version: int) -> list[TrainRow]:
    """The rollouts that are in the loss."""
    return [
        _row(credited, i, policy_version - credited.group.policy_version)
        for i, in_loss in enumerate(credited.in_loss_G)
        if in_loss
    ]


def pack(groups: Sequence[Sequence[TrainRow]], budget_tokens: int, share_prompts: bool) -> list[MicroBatch]:
    """Every row in exactly one micro-batch.

    share_prompts: cost is the tokens without padding, each prompt once; otherwise rows are padded to the longest
    and each carries its prompt.
    """
    cost: Callable[[Sequence[TrainRow]], int] = shared_cost if share_prompts else padded_cost
    units = (
        [list(group) for group in groups if group] if share_prompts else [[row] for group in groups for row in group]
    )
    batches: list[MicroBatch] = []
    current: list[TrainRow] = []
    for unit in sorted(units, key=lambda rows: max(row.num_with_prompt for row in rows), reverse=True):
        for part in _split(unit, budget_tokens, cost):
            if current and cost([*current, *part]) > budget_tokens:
                batches.append(_micro_batch(current))
                current = []
            current.extend(part)
    return [*batches, _micro_batch(current)] if current else batches


def shared_cost(rows: Sequence[TrainRow]) -> int:
    """Returns the tokens of a forward in which rows share their prompts."""
    prompts = {id(row.prompt_P): len(row.prompt_P) for row in rows}
    return sum(prompts.values()) + sum(row.num_inputs for row in rows)


def padded_cost(rows: Sequence[TrainRow]) -> int:
    """Returns the tokens of a forward padded to the longest row, prompts included."""
    return len(rows) * max(row.num_with_prompt for row in rows)


def _split(rows: list[TrainRow], budget_tokens: int, cost: Callable[[Sequence[TrainRow]], int]) -> list[list[TrainRow]]:
    if cost(rows) <= budget_tokens:
        return [rows]
    parts: list[list[TrainRow]] = [[]]
    for row in sorted(rows, key=lambda row: row.num_inputs, reverse=True):
        if parts[-1] and cost([*parts[-1], row]) > budget_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


def _micro_batch(rows: Sequence[TrainRow]) -> MicroBatch:
    prompts = {id(row.prompt_P): row.prompt_P for row in rows}
    index = {key: i for i, key in enumerate(prompts)}
    prompt_of_R = np.array([index[id(row.prompt_P)] for row in rows], np.int64)
    return MicroBatch(tuple(prompts.values()), prompt_of_R, tuple(rows))


def _row(credited: CreditedGroup, i: int, lag: int) -> TrainRow:
    rollout = credited.rollouts[i]
    end = int(np.flatnonzero(rollout.policy_mask_T)[-1]) + 1
    return TrainRow(
        prompt_P=credited.group.prompt_P,
        tokens_T=rollout.tokens_T[:end],
        engine_logprobs_T=rollout.logprobs_T[:end],
        policy_mask_T=rollout.policy_mask_T[:end],
        advantage=float(credited.advantages_G[i]),
        temperature=credited.group.temperature or 1.0,
        lag=lag,
    )
