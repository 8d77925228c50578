"""What learner.num_updates may become when a run is resumed: the rule in words, with the values of this run.

More updates at any time, unless the learning rate is spent by their number; fewer only with --override, and never fewer than
are made.
"""

from pathlib import Path

from cluster.config.run_config import RunConfig
from cluster.record.run_view import read_run
from learner.methods import schedule_of
from learner.schedule import learning_rate

NUM_UPDATES = "learner.num_updates"


def updates_made(run_path: Path) -> int:
    """As far as the run's records tell; an end without a checkpoint may have made one more."""
    run = read_run(run_path)
    steps = [line["step"] for line in run.metrics]
    return max([*steps, int((run.summary or {}).get("updates", 0))], default=0)


def why_refused(run_path: Path, before: RunConfig, now: RunConfig) -> str:
    """Of another num_updates; "" where it is taken."""
    if now.learner.num_updates >= before.learner.num_updates:
        return rate_that_jumps(before, now)
    asked, made = before.learner.num_updates, updates_made(run_path)
    fewer = f", or with --override {max(made, 1)} to {asked - 1}" if made < asked else ""
    return (
        f"it may grow, not shrink, and {made} updates are made: {asked} or more are taken{fewer}. To end a run before, "
        f"`memr stop {run_path}`"
    )


def rate_that_jumps(before: RunConfig, now: RunConfig) -> str:
    """Empty where the learning rate does not depend on num_updates."""
    old, new = before.learner, now.learner
    if old.schedule == "constant" and old.warmup_share == 0:
        return ""
    last = old.num_updates - 1
    rates = [
        learning_rate(last, s.num_updates, s.learning_rate, schedule_of(s.schedule), s.warmup_share) for s in (old, new)
    ]
    return (
        f"learner.schedule = '{old.schedule}' and learner.warmup_share = {old.warmup_share:g} spend the learning rate by "
        f"num_updates: of update {old.num_updates} it was {rates[0]:.3g} and would be {rates[1]:.3g}"
    )
