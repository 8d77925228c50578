"""Runs training under its supervisor from a terminal: prints the plan before it, summary and next steps after it."""

import os
import sys

from rich.console import Console
from rich.text import Text

from cluster.commands.early_signals import INTERRUPTED
from cluster.commands.summary import show_plan, show_summary
from cluster.config.run_config import RunConfig
from cluster.launch.early_checks import refuse_missing_files
from cluster.record.run_view import read_run
from cluster.recovery.supervisor import Supervisor
from cluster.watch.notify import SUPERVISOR_CLOSES_WITHIN_S, Notifier
from cluster.watch.terminal import terminal
from contracts.errors import DataError


def supervise(settings: RunConfig, command: list[str], lock: int) -> int:
    """To the end of the run, with its result on the screen; the exit code. A run that has finished shows its result.

    command: arguments of `memr` for the run's own process. lock: descriptor of the run's lock."""
    console = terminal()
    if _has_finished(settings):
        _show_finished(console, settings)
        return 0
    refuse_missing_files(settings)
    settings.learner.refuse_cut_cap()
    settings.actors.refuse_group_of_one()
    show_plan(console, settings)
    notifier = Notifier(settings.notify)
    supervisor = Supervisor(
        [sys.executable, "-m", "cluster", *command, "--supervisor", str(os.getpid())],
        settings.run_path,
        settings.supervision,
        say=lambda text: console.print(Text.assemble(("memr: ", "bold yellow"), text), soft_wrap=True),
        tell=notifier.send,
        lock=lock,
        failed_notices=notifier.first_failures,
    )
    code = supervisor.run()
    notifier.close(SUPERVISOR_CLOSES_WITHIN_S)
    supervisor.report_failed_notices()
    if code in (0, INTERRUPTED) and (settings.run_path / "summary.json").exists():
        _show_result(console, settings)
    return code


def _has_finished(settings: RunConfig) -> bool:
    if not (settings.run_path / "summary.json").exists():
        return False
    from cluster.record.resume import nothing_left

    return nothing_left(settings.run_path, settings)


def _show_finished(console: Console, settings: RunConfig) -> None:
    console.print(Text.assemble((str(settings.run_path), "bold"), " has run already; its result:"), soft_wrap=True)
    show_summary(console, read_run(settings.run_path))
    console.print(
        "For more updates: --set learner.num_updates=N. For another run choose another name: --set run.name=NAME, "
        f"or delete {settings.run_path}.",
        soft_wrap=True,
    )


def _show_result(console: Console, settings: RunConfig) -> None:
    from cluster.commands.report import write_report

    try:
        write_report(settings.run_path)
    except DataError as error:  # the run ended as it did anyway
        console.print(Text.assemble(("memr: ", "bold yellow"), str(error)), soft_wrap=True)
    show_summary(console, read_run(settings.run_path))
