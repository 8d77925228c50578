"""Out of memory is no end of a run: the batch is computed again in smaller pieces, with the same gradient to rounding.

    pack under a budget -> forward, backward, piece by piece -> out of memory: forget all of it, half the budget, once more

The loss is a sum over tokens divided by a number that no piece knows of, so how it is cut changes rounding alone.
"""

import gc
from collections.abc import Callable, Sequence

import torch

from contracts.errors import LearnerError
from learner.packing import MicroBatch, TrainRow, padded_cost, shared_cost
from loading.load_errors import out_of_memory


def is_out_of_memory(error: BaseException) -> bool:
    """By torch's own type too. Of the other types that of a computation alone: a ValueError that says so is none."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | MemoryError) and out_of_memory(error)


class RetrySmaller:
    """budget_tokens: of a micro-batch; once halved it stays, as the next batch would fail the same way."""

    def __init__(self, budget_tokens: int, device: torch.device, *, share_prompts: bool) -> None:
        self.budget_tokens = budget_tokens
        self._device = device
        self._cost: Callable[[Sequence[TrainRow]], int] = shared_cost if share_prompts else padded_cost

    def run(self, packed: Callable[[], list[MicroBatch]], attempt: Callable[[list[MicroBatch]], None]) -> None:
        """packed: the batch under the present budget. attempt: all of it from zeroed gradients. Raises LearnerError where a
        single rollout does not fit."""
        state = self._random_state()
        while True:
            batches = packed()
            try:
                return attempt(batches)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                words = str(error).splitlines()[0] if str(error) else type(error).__name__
            # Out here the error is gone, and with it the frames that hold on to tensors.
            self.budget_tokens = self._smaller(batches, words)
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            self._set_random_state(state)  # dropout draws the same again

    def _smaller(self, batches: Sequence[MicroBatch], words: str) -> int:
        largest = max(batches, key=lambda batch: self._cost(batch.rows))
        tokens = self._cost(largest.rows)
        if all(len(batch.rows) == 1 for batch in batches):
            raise LearnerError(
                f"the learner ran out of memory ({words}) with one rollout at a time, the longest of {tokens} tokens. Lower "
                "actors.max_new_tokens or task.max_prompt_tokens, give the learner more of the card (learner.gpus, "
                "actors.vllm.gpu_memory_utilization), or use a larger card"
            )
        return max(1, min(self.budget_tokens, tokens) // 2)

    def _random_state(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        on_card = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return torch.get_rng_state(), on_card

    def _set_random_state(self, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self._device)
