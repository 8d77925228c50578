"""Prints a run's plan, status and closing summary as tables, and the next steps."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.commands.next_steps import next_steps
from cluster.config.run_config import RunConfig
from cluster.config.set_options import overridden
from cluster.config.silent_settings import silent_lines
from cluster.flow.scaling_policy import Waits, bottleneck
from cluster.launch.placement import Node, place, placement_rows
from cluster.launch.plan import make_plan, plan_rows
from cluster.record.events.failures import (
    Crashed,
    EndedByForce,
    GaveUp,
    NoticeFailed,
    PartLost,
    RayFailed,
    Stopped,
    SupervisorDied,
)
from cluster.record.events.resuming import Resumed
from cluster.record.events.workers import Joined
from cluster.record.incidents import incident_lines
from cluster.record.memory_effect import WINDOW_UPDATES, effect_text, memory_effect
from cluster.record.run_dir import being_taken_up, is_copy, owner_alive, surely_over
from cluster.record.run_view import RunView
from cluster.record.worker_figures import work_text
from cluster.watch.alarms.reward_errors import error_shares, errors_text
from cluster.watch.alarms.windows import Lines
from cluster.watch.console import eval_text, step_text


def show_plan(console: Console, config: RunConfig) -> None:
    """Prints what a configuration amounts to, and notes on settings without effect and unset variables."""
    table = Table.grid(padding=(0, 2))
    for name, value in plan_rows(config, make_plan(config)):
        table.add_row(Text(name, "bold"), value)
    console.print(table)
    for line in [*silent_lines(config), *config.notify.unset(os.environ)]:
        console.print(f"note: {line}", soft_wrap=True)


def show_overridden(console: Console, overrides: Sequence[str]) -> None:
    """Prints a note per `--set` that a later one replaced."""
    for line in overridden(overrides):
        console.print(f"note: {line}", soft_wrap=True)


def show_placement(console: Console, config: RunConfig, nodes: Sequence[Node]) -> bool:
    """Who gets what on these nodes; False where something is short."""
    placement = place(config, nodes)
    gpus, cpus = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
    where = f" on {len(nodes)} node(s), {cpus:,.10g} CPUs, {gpus:,.10g} GPUs"
    console.print(Text.assemble(("\nplacement", "bold"), where))
    table = Table.grid(padding=(0, 2))
    for part, needs in placement_rows(placement):
        table.add_row(f"  {part}", needs)
    console.print(table)
    for note in placement.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for shortage in placement.shortages:
        console.print(Text.assemble(("short: ", "red"), shortage), soft_wrap=True)
    return not placement.shortages


def show_status(console: Console, run: RunView) -> None:
    """Prints a run's state, newest update, ledger, bottleneck and processes, from its folder alone."""
    console.print(Text.assemble((str(run.path), "bold"), f": {state_of(run)}"), soft_wrap=True)
    show_missing_metrics(console, run)
    if run.metrics:
        console.print(step_text(run.metrics[-1], run.config.learner.num_updates), soft_wrap=True)
        ledger = run.metrics[-1]["ledger"]
        console.print("ledger: " + ", ".join(f"{name} {count}" for name, count in ledger.items()), soft_wrap=True)
        console.print(f"bottleneck: {recent_bottleneck(run)}", soft_wrap=True)
        if run.config.memory.enabled:
            console.print(
                effect_text(memory_effect(run.metrics[-WINDOW_UPDATES:]), pays=run.config.memory.pays), soft_wrap=True
            )
    show_reward_errors(console, run.metrics[-WINDOW_UPDATES:])
    if run.fleet and run.status is not None and (work := work_text(run.status)):
        console.print(f"workers: {work}", soft_wrap=True)
    for now in run.fleet:
        work = work_text(now.figures)
        console.print(
            f"{now.worker}: {now.state}, version {now.version}, {now.rollouts_in_hand} rollouts in hand{work and f'; {work}'}",
            soft_wrap=True,
        )
    for line in run.evals:
        console.print(eval_text(line), soft_wrap=True)
    show_incidents(console, run)
    show_next_steps(console, run)


def show_reward_errors(console: Console, metrics: Lines) -> None:
    """Nothing where nothing failed."""
    if text := errors_text(error_shares(metrics)):
        console.print(Text(f"{text} (of {len(metrics)} updates)", "red"), soft_wrap=True)


def show_incidents(console: Console, run: RunView) -> None:
    """What the run noticed by itself, alarms first, and where notices failed; nothing where all was well."""
    lines = incident_lines(run.incidents)
    for line in lines:
        console.print(Text(line, "red"), soft_wrap=True)
    if lines:
        console.print(f"incidents in full: {run.path / 'incidents'}", soft_wrap=True)
    failed = {event.destination: event.headline for event in run.events if isinstance(event, NoticeFailed)}
    for headline in failed.values():
        console.print(f"note: {headline}", soft_wrap=True)


FAILURES = (Stopped, GaveUp, Crashed, PartLost, RayFailed, SupervisorDied)
"""Events after which a run does not go on by itself, unless it is resumed."""
ENDS = (*FAILURES, EndedByForce)


def state_of(run: RunView, now_s: float | None = None) -> str:
    """One phrase, from the files alone; "running" only if its process on this machine still is."""
    if run.summary is not None:
        how = "finished" if run.summary["exit_code"] == 0 else _how_it_stopped(run.summary)
        now = "being resumed; before that " if being_taken_up(run.path) else ""
        minutes = f"{run.summary['wall_s'] / 60:.1f} min"
        took = f"{minutes} since it was resumed" if any(isinstance(event, Resumed) for event in run.events) else minutes
        return f"{now}{how}, {run.summary['updates']} updates, {took}"
    last = next((event for event in reversed(run.events) if isinstance(event, (*ENDS, Resumed, Joined))), None)
    if isinstance(last, EndedByForce):
        return f"{last.headline}; `memr resume` goes on"
    if isinstance(last, FAILURES):
        return f"failed: {last.headline}"
    if run.status is None:
        return "starting, or died before its first update"
    age = (now_s if now_s is not None else time.time()) - run.status["time_s"]
    if age < 15 and owner_alive(run.path):
        return f"running ({run.status['phase']}), update {run.status['step']} of {run.status['num_updates']}"
    if is_copy(run.path):
        how = " (a copy of a run that was going on)"
    else:
        how = " (its processes ended without a word: killed, or a power cut; `memr resume` goes on)" * surely_over(
            run.path
        )
    return f"not running{how}; last sign of life {age / 60:.0f} min ago at update {run.status['step']} ({run.status['phase']})"


def _how_it_stopped(summary: Mapping[str, Any]) -> str:
    """Runs of earlier commits did not write down what ended them."""
    if summary.get("ended_by") == SupervisorDied.written_as:
        return "ended because its supervisor died, after a checkpoint; `memr resume` goes on"
    return "stopped on request; `memr resume` goes on"


def recent_bottleneck(run: RunView) -> str:
    """Over the last ten updates."""
    return bottleneck(
        [
            Waits(line["step"], line["step_s"], line["wait_rollouts_s"], line["wait_memory_s"], 0, run.config.slots)
            for line in run.metrics[-10:]
        ]
    )


def show_missing_metrics(console: Console, run: RunView) -> None:
    """Nothing where every update has its line."""
    if missing := run.updates_without_metrics:
        console.print(
            f"note: metrics.jsonl has no line of {missing} of the run's updates: figures are of the others. Restore it from a copy",
            soft_wrap=True,
        )


def show_summary(console: Console, run: RunView) -> None:
    """What changed, where it is, what to do next."""
    console.print()
    console.print(Text.assemble((str(run.path), "bold"), f" {state_of(run)}"), soft_wrap=True)
    show_missing_metrics(console, run)
    _show_accuracy(console, run)
    if run.metrics:
        waited = sum(line["wait_memory_s"] for line in run.metrics) / sum(line["step_s"] for line in run.metrics)
        # Without a bonus memory hears of the last groups behind the last update.
        episodes = max(run.metrics[-1]["memory_episodes"], (run.summary or {}).get("memory_episodes", 0))
        console.print(
            f"memory: {episodes} episodes; the learner waited for it {waited:.2%} of its time in the whole run",
            soft_wrap=True,
        )
        if run.config.memory.enabled:
            console.print(effect_text(memory_effect(run.metrics), pays=run.config.memory.pays), soft_wrap=True)
    show_reward_errors(console, run.metrics)
    show_incidents(console, run)
    console.print(f"\nreport   {run.path / 'report.html'}", soft_wrap=True)
    show_next_steps(console, run)


def _show_accuracy(console: Console, run: RunView) -> None:
    rows = before_after(run)
    if not rows:
        why = "eval.problems = 0" if run.config.eval.problems == 0 else "no evaluation of held-out problems was made"
        console.print(f"accuracy was not measured: {why}", soft_wrap=True)
        return
    table = Table("held-out problems", "before", after_label(run), box=None, header_style="bold")
    for label, before, after in rows:
        table.add_row(label, before, after)
    console.print(table)


def show_next_steps(console: Console, run: RunView) -> None:
    """Prints the commands that make sense next for this run."""
    for number, step in enumerate(next_steps(run)):
        console.print(f"{'' if number else 'next:':<8} {step}", soft_wrap=True)


def after_label(run: RunView) -> str:
    """Head of the column of the last evaluation, which a run that stopped made somewhere on its way."""
    last, wanted = max((line["step"] for line in run.evals), default=0), run.config.learner.num_updates
    return "after" if last >= wanted else f"at update {last} of {wanted}"


def before_after(run: RunView) -> list[tuple[str, str, str]]:
    """One row per kind of evaluation that was made both at step 0 and at the end."""
    last_step = max((line["step"] for line in run.evals), default=0)
    rows = []
    for first in (line for line in run.evals if line["step"] == 0):
        kind = (first["max_new_tokens"], first["k"])
        last = [line for line in run.evals if line["step"] == last_step and (line["max_new_tokens"], line["k"]) == kind]
        label = f"pass@{first['k']}" if first["k"] else "greedy accuracy"
        label += f", at most {first['max_new_tokens']} tokens (n = {first['n']})"
        score = "pass_at_k" if first["k"] else "accuracy"
        rows.append((label, f"{first[score]:.1%}", f"{last[0][score]:.1%}" if last and last_step else "-"))
    return rows
