"""Claim: random faults cost time and nothing else.

One run on real Ray, with the scripted engine or (--model real) a language model and an encoder. A seeded sequence of faults is done to it from outside: kill -9 and SIGSTOP of
every kind of process, and pauses (SIGSTOP, one second, SIGCONT). After each: is the headline the true cause, and how long
until updates come at the old rate again? At the end the durable log is read: problems lost, trained twice, sampled twice.

Share of effective training time, modelled: a fault every 60 s on average, each of a random kind as drawn here, each costing
the measured mean delay: 60 / (60 + delay). A second fault during a recovery is not modelled.
"""

import argparse
import json
import random
import re
import signal
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.fault_headlines import EXPECTED, KILL, PAUSE, REPAIRED, STOP
from benchmarks.results_table import show
from tests.faults.fault_run import Books, FaultRun


@dataclass(frozen=True, slots=True)
class Model:
    """What runs. window: updates over which a rate is taken, and that pass before the next fault."""

    config: str
    window: int
    patience_s: float
    whats: tuple[str, ...]
    settings: dict[str, Any]


MODELS = {
    "scripted": Model(
        "scripted",
        window=10,
        patience_s=150,
        whats=(KILL, STOP, PAUSE),
        settings={
            "learner__num_updates": 100000,
            "cluster__checkpoint_every_updates": 100,
            "actors__scripted__latency_per_token_s": 0.01,
        },
    ),
    "real": Model(  # SmolLM2-135M and the real encoder; a stopped process would be noticed after the limits of a real run
        "quickstart",
        window=3,
        patience_s=600,
        whats=(KILL,),
        settings={
            "learner__num_updates": 2000,
            "cluster__checkpoint_every_updates": 5,
            "actors__num_workers": 1,
            "actors__lease_deadline_s": 120,
            "cluster__learner_call_s": 120,
            "cluster__memory_call_s": 120,
            "supervision__heartbeat_s": 60,
            "supervision__progress_s": 600,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """to_full_rate_s: from the fault to the first update of a window as fast as the one before the fault. delay_s: how
    much later those updates came than they would have. headlines: new ones; right: they are what was due."""

    target: str
    what: str
    to_full_rate_s: float
    delay_s: float
    headlines: list[str]
    right: bool


class Rate:
    """When each update came, watched from outside; a thread of its own, because faults block the rest."""

    def __init__(self) -> None:
        self.run: FaultRun | None = None
        self.times_s: list[float] = []
        self._over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over:
            steps = self.run.steps() if self.run else 0
            now = time.monotonic()
            self.times_s += [now] * (steps - len(self.times_s))
            time.sleep(0.01)

    def close(self) -> None:
        self._over = True
        self._thread.join(5)


def begin(directory: Path, model: Model) -> FaultRun:
    return FaultRun(
        directory,
        "r",
        config=model.config,
        eval__problems=0,
        supervision__run_restart_window_s=15,  # pauses between restarts begin anew with each fault
        cluster__groups_per_batch=4,
        actors__rollouts_per_group=4,
        **model.settings,
    )


def do_fault(
    run: FaultRun, rate: Rate, target: str, what: str, directory: Path, model: Model
) -> tuple[FaultRun, Outcome]:
    run.wait_for_step(len(rate.times_s) + model.window, model.patience_s)
    before_s = (rate.times_s[-1] - rate.times_s[-1 - model.window]) / model.window
    told, repairs = len(run.headlines()), count(run, REPAIRED[target])
    first = len(rate.times_s)
    run.remember()
    struck = time.monotonic()
    process = run.find(target)
    process.send_signal(signal.SIGKILL if what == KILL else signal.SIGSTOP)
    if what == PAUSE:
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)
    if target == "supervisor":
        assert not run.survivors(60), run.survivors(0)
        run.end()
        run = begin(directory, model)
        rate.run = run
    back_s = at_full_rate(rate, first, before_s, model, noticed=lambda: due(run, target, what, told, repairs))
    updates = sum(1 for at in rate.times_s[first:] if at <= back_s)
    found = run.headlines()[told:]
    wanted = EXPECTED[target, what]
    right = found == [] if not wanted else len(found) == 1 and re.fullmatch(wanted, found[0]) is not None
    delay_s = back_s - struck - updates * before_s
    return run, Outcome(target, what, back_s - struck, max(0.0, delay_s), found, right)


def due(run: FaultRun, target: str, what: str, told: int, repairs: int) -> bool:
    """Whether the fault has been noticed and repaired, where it must be: a stopped process may be noticed late."""
    noticed = not EXPECTED[target, what] or len(run.headlines()) > told
    return noticed and (what == PAUSE or count(run, REPAIRED[target]) > repairs)


def count(run: FaultRun, event: str) -> int:
    path = run.path / "events.jsonl"
    return path.read_text().count(f'"event": "{event}"') if path.exists() else 0


def at_full_rate(rate: Rate, first: int, before_s: float, model: Model, noticed: Callable[[], bool]) -> float:
    """When the first window of updates began that came as fast as before (1.5 times is as fast), with all noticed."""
    window = model.window
    until = time.monotonic() + model.patience_s
    while time.monotonic() < until:
        if noticed():
            noticed_s = time.monotonic()
            start = len(rate.times_s)
            while time.monotonic() < until:
                times_s = rate.times_s
                for i in range(max(first, start - window), len(times_s) - window):
                    took_s = (times_s[i + window] - times_s[i]) / window
                    if took_s <= 1.5 * before_s and times_s[i + window] >= noticed_s:
                        return times_s[i]
                time.sleep(0.02)
        time.sleep(0.02)
    told = rate.run.headlines() if rate.run else []
    raise AssertionError(
        f"it did not come back to its rate within {model.patience_s:g} s; updates since {len(rate.times_s) - first}; last headlines {told[-3:]}"
    )


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a run left after all its faults."""

    outcomes: Sequence[Outcome]
    exit_code: int | None
    updates: int
    books: Books


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        after = endure(arguments, arguments.keep or Path(folder))
    suffix = "" if arguments.model == "scripted" else f"_{arguments.model}"
    show(f"faults{suffix}", "Faults done to a run from outside", rows_by_kind(after.outcomes))
    show(f"faults{suffix}_summary", "What random faults left", [summary_of(after)])
    print(json.dumps([asdict(o) for o in after.outcomes if not o.right], indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=list(MODELS), default="scripted")
    parser.add_argument("--only", help="faults of this target alone, or one kind: 'kill -9 raylet'")
    parser.add_argument("--keep", type=Path, help="folder for the run, which then stays")
    return parser.parse_args()


def endure(arguments: argparse.Namespace, directory: Path) -> Aftermath:
    """One run, with faults drawn at random until there were enough, then ended in order."""
    model = MODELS[arguments.model]
    kinds = [kind for kind in EXPECTED if arguments.only in (None, kind[0], f"{kind[1]} {kind[0]}")]
    kinds = [kind for kind in kinds if kind[1] in model.whats]
    draws = random.Random(arguments.seed)
    outcomes: list[Outcome] = []
    run, rate = begin(directory, model), Rate()
    rate.run = run
    try:
        run.wait_for_step(2 * model.window, model.patience_s)
        for number in range(arguments.faults):
            target, what = draws.choice(kinds)
            run, outcome = do_fault(run, rate, target, what, directory, model)
            outcomes.append(outcome)
            mark = "" if outcome.right else f"   WRONG: {outcome.headlines}"
            print(
                f"{number + 1:4d} {what} of {target}: full rate after {outcome.to_full_rate_s:.1f} s{mark}", flush=True
            )
        run.process.send_signal(signal.SIGTERM)
        return Aftermath(outcomes, run.finish(120), len(rate.times_s), run.books())
    finally:
        rate.close()
        run.end()


def rows_by_kind(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    by_kind: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.target, outcome.what].append(outcome)
    return [
        {
            "fault": f"{what} of {target}",
            "times": len(found),
            "to full rate p50 s": round(statistics.median(o.to_full_rate_s for o in found), 2),
            "max s": round(max(o.to_full_rate_s for o in found), 2),
            "wrong headlines": sum(not o.right for o in found),
        }
        for (target, what), found in sorted(by_kind.items())
    ]


def summary_of(after: Aftermath) -> dict[str, Any]:
    delay_s = statistics.mean(o.delay_s for o in after.outcomes)
    return {
        "faults": len(after.outcomes),
        "exit code": after.exit_code,
        "updates": after.updates,
        "issued": after.books.issued,
        "trained": after.books.trained,
        "dropped or failed": after.books.ended,
        "trained twice": after.books.trained_twice,
        "sampled twice": after.books.sampled_twice,
        "updates in order": after.books.steps_in_order,
        "wrong headlines": sum(not o.right for o in after.outcomes),
        "mean delay s": round(delay_s, 2),
        "effective share, a fault every 60 s": round(60 / (60 + delay_s), 3),
    }


if __name__ == "__main__":
    main()
