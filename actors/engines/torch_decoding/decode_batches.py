"""Which samples decode together: requests cut into batches of at most `max_rows` rows. Pure.

Requests of like length share a batch, so little is padded; a request with more samples than fit is cut, and its
prompt is prefilled once per batch it appears in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ROW_STEP = 8


@dataclass(frozen=True, slots=True)
class Slice:
    """Samples [first, first + count) of one request."""

    request: int
    first: int
    count: int


def plan_batches(prompt_lengths: Sequence[int], num_samples: Sequence[int], max_rows: int) -> list[list[Slice]]:
    """Cover every sample exactly once; batches in order of prompt length, ties in order of request."""
    batches: list[list[Slice]] = []
    room = 0
    for request in sorted(range(len(prompt_lengths)), key=lambda index: prompt_lengths[index]):
        first = 0
        while first < num_samples[request]:
            if room == 0:
                batches.append([])
                room = max_rows
            count = min(room, num_samples[request] - first)
            batches[-1].append(Slice(request, first, count))
            first, room = first + count, room - count
    return batches


def rows_after_compaction(num_live: int, num_rows: int) -> int:
    """How many rows to go on with: the live ones, and ended ones up to a multiple of ROW_STEP.

    Few distinct numbers of rows keep the number of compiled kernels small (see decode_cache); copying the caches
    costs about an eighth of a step, what one ROW_STEP fewer saves on every later step of a batch of 64.
    """
    return min(num_rows, -(-num_live // ROW_STEP) * ROW_STEP)
