"""How a process of a run ended, and what its exit code means. Pure."""

import signal
from dataclasses import dataclass

MAY_RESTART = 4
"""Exit code of a run's process for a failure that another start may cure; 1 is Python's own for a crash."""
FAILED, INTERRUPTED = 3, 130
ENDS = {0: "finished", INTERRUPTED: "stopped on request"}
"""Exit codes of a run that did not fail, in words."""


@dataclass(frozen=True, slots=True)
class Ending:
    """headline: empty where the process ended by itself, with its own words. forced: ended from outside because it was
    asked to end, or hung, and did not."""

    code: int
    headline: str = ""
    forced: bool = False

    @property
    def curable(self) -> bool:
        return bool(self.headline) or self.code in (1, MAY_RESTART) or self.code < 0


def ending_of(code: int, *, had_ray: bool, out_of_memory: bool, asked_early: bool) -> Ending:
    """had_ray: its Ray had started. asked_early: a signal asked it to end before its first sign of life."""
    if code in (0, 2, FAILED, INTERRUPTED, MAY_RESTART):
        return Ending(code)  # it said why, or left an incident
    if asked_early:
        return Ending(INTERRUPTED)  # so early that Python itself was still starting, which then ends either way
    if code < 0:
        headline = f"the run's own process was killed by {signal.Signals(-code).name}"
    elif had_ray:  # Ray ends a process whose raylet is gone, faster than anyone can look
        headline = "Ray's node process (raylet) died"
    else:
        headline = f"the run's own process ended with code {code} while it started; its last output are above"
    if out_of_memory:
        headline += "; the kernel killed a process because memory ran out"
    return Ending(code, headline)
