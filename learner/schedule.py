"""The learning rate of each update. Pure."""

import math
from typing import Literal


def learning_rate(
    update: int, num_updates: int, peak: float, schedule: Literal["constant", "linear", "cosine"], warmup_share: float
) -> float:
    """update counts from 0. Never 0 inside the run: the first warm-up step is one step up, and the decay reaches 0
    at num_updates, after the last update. Past the end it stays at the last update's rate."""
    update = min(update, num_updates - 1)
    num_warmup = math.ceil(warmup_share * num_updates)
    if update < num_warmup:
        return peak * (update + 1) / num_warmup
    if schedule == "constant":
        return peak
    progress = (update - num_warmup) / (num_updates - num_warmup)
    return peak * ((1 - progress) if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2)
