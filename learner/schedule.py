"""The learning rate of each update. Pure."""

import math
from collections.abc import Callable, Mapping

Shape = Callable[[float], float]
"""Progress of the run behind the warm-up, in [0, 1), to a share of the peak rate in (0, 1]."""


def constant(_progress: float) -> float:
    """Returns 1 throughout."""
    return 1.0


def linear(progress: float) -> float:
    """Down to 0 at the end."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Down to 0 at the end, slowly at both ends (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5)."""
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: Mapping[str, Shape] = {"constant": constant, "linear": linear, "cosine": cosine}


def learning_rate(update: int, num_updates: int, peak: float, shape: Shape, warmup_share: float) -> float:
    """update counts from 0. Never 0 inside the run: the first warm-up step is one step up, and the decay reaches 0
    at num_updates, after the last update. Past the end it stays at the last update's rate."""
    update = min(update, num_updates - 1)
    num_warmup = math.ceil(warmup_share * num_updates)
    if update < num_warmup:
        return peak * (update + 1) / num_warmup
    return peak * shape((update - num_warmup) / (num_updates - num_warmup))
