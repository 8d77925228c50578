"""Memory that runs out in an update: half the micro-batch, from the beginning, the same gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.errors import BadNumbersError, LearnerError
from learner.learner import Learner
from learner.packing import MicroBatch, shared_cost
from learner.retry_smaller import is_out_of_memory
from learner.update_record import UpdateRecord
from tests.unit.learner.builders import random_batch, tiny_learner

LARGE = 10_000
ERRORS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    lambda: RuntimeError("not enough memory: you tried to allocate 8 bytes"),
    lambda: torch.OutOfMemoryError("hipErrorOutOfMemory"),
    lambda: MemoryError(),
]


def with_room_for(learner: Learner, tokens: int, error: Callable[[], Exception] = ERRORS[0]) -> list[int]:
    """Backward of a micro-batch of more tokens fails after the forward. Returns tokens of each one tried, in order."""
    tried: list[int] = []
    own = learner._backward

    def backward(batch: MicroBatch, normaliser: int, record: UpdateRecord) -> None:
        tried.append(shared_cost(batch.rows))
        own(batch, normaliser, record)  # its gradient is there already: it must not count twice
        if tried[-1] > tokens:
            raise error()

    learner._backward = backward  # type: ignore[method-assign]
    return tried


def gradients_after(learner: Learner) -> dict[str, Tensor]:
    learner.step(random_batch())
    return {name: g.clone() for name, g in learner.masters.gradients()}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_is_that_of_a_learner_that_was_given_the_smaller_micro_batch(
    dtype: str, error: Callable[[], Exception]
) -> None:
    poor = tiny_learner(micro_batch_tokens=LARGE, dtype=dtype, max_grad_norm=1e9)
    tried = with_room_for(poor, max(map(cost_of_one, random_batch())) * 2, error)
    report = poor.step(random_batch())
    assert len(tried) > 2, "it failed and was tried again"
    assert report.micro_batch_tokens < LARGE
    asked = tiny_learner(micro_batch_tokens=report.micro_batch_tokens, dtype=dtype, max_grad_norm=1e9)
    asked.step(random_batch())
    for (name, found), (_, expected) in zip(poor.masters.gradients(), asked.masters.gradients(), strict=True):
        assert torch.equal(found, expected), name
    assert poor.publish().weights == asked.publish().weights


def cost_of_one(scored: Any) -> int:
    return len(scored.group.prompt_P) + max(len(rollout.tokens_T) for rollout in scored.group.rollouts)


def test_the_gradient_is_that_of_enough_memory_to_rounding() -> None:
    rich = tiny_learner(micro_batch_tokens=LARGE, max_grad_norm=1e9)
    poor = tiny_learner(micro_batch_tokens=LARGE, max_grad_norm=1e9)
    with_room_for(poor, max(map(cost_of_one, random_batch())) * 2)
    expected, found = gradients_after(rich), gradients_after(poor)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_what_was_learned_of_the_card_is_kept_for_the_next_update() -> None:
    learner = tiny_learner(micro_batch_tokens=LARGE)
    room = max(map(cost_of_one, random_batch())) * 2
    tried = with_room_for(learner, room)
    learner.step(random_batch())
    before = len(tried)
    learner.step(random_batch(version=1))
    assert max(tried[before:]) <= room


def test_dropout_draws_the_same_again() -> None:
    """A replay on a card with room for the smaller micro-batch gives the same adapter."""
    room = max(map(cost_of_one, random_batch())) * 2
    poor = tiny_learner(micro_batch_tokens=LARGE, lora_dropout=0.3)
    torch.manual_seed(7)
    with_room_for(poor, room)
    budget = poor.step(random_batch()).micro_batch_tokens
    asked = tiny_learner(micro_batch_tokens=budget, lora_dropout=0.3)
    torch.manual_seed(7)
    asked.step(random_batch())
    assert poor.publish().weights == asked.publish().weights


def test_one_rollout_that_does_not_fit_is_told_and_not_tried_for_ever() -> None:
    learner = tiny_learner(micro_batch_tokens=LARGE)
    tried = with_room_for(learner, 1)
    before = learner.publish().weights
    with pytest.raises(LearnerError, match=r"CUDA out of memory.*one rollout at a time.*Lower actors\.max_new_tokens"):
        learner.step(random_batch())
    assert len(tried) < 20
    assert (learner.policy_version, learner.publish().weights) == (0, before), "before any change"


def test_other_errors_are_not_tried_again() -> None:
    learner = tiny_learner(micro_batch_tokens=LARGE)
    tried = with_room_for(learner, 0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        learner.step(random_batch())
    assert len(tried) == 1


def test_bad_numbers_are_no_want_of_memory() -> None:
    assert not is_out_of_memory(BadNumbersError("the loss is not finite"))
    assert not is_out_of_memory(ValueError("out of memory"))
