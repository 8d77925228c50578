"""Is a lost worker replaced? A function of when workers were lost, of the budget and of the clock; it decides only."""

from collections.abc import Sequence


def may_replace(losses_s: Sequence[float], now_s: float, budget: int, window_s: float) -> bool:
    """losses_s: when workers were lost, the newest included. True while at most `budget` of them lie in the window."""
    return sum(1 for lost_s in losses_s if now_s - lost_s <= window_s) <= budget
