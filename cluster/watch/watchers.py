"""Who watches a run from its first line on: a console, its log, hooks, TensorBoard. The recorder drops one that fails."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from cluster.config.run_config import RunConfig
from cluster.record.events.event import Event
from cluster.record.process_log import CONTROLLER_LOG
from cluster.record.recorder import Watcher
from cluster.watch.console import ConsoleLog, LiveConsole, PlainConsole
from cluster.watch.notify import Notifier
from cluster.watch.notify_watcher import NotifyWatcher
from cluster.watch.tensorboard import TensorboardWatcher


def watchers(
    config: RunConfig, run_path: Path, console: Console, logs: Path | None, report: Callable[[Event], None]
) -> Sequence[Watcher]:
    """logs: folder of this attempt's logs. report: records an event. Hooks come first: what they report when they are
    closed, the others still show."""
    num_updates = config.learner.num_updates
    found: list[Watcher] = []
    notifier = Notifier(config.notify)
    if notifier.enabled:
        found.append(NotifyWatcher(notifier, run_path, report))
    found.append(
        LiveConsole(console, num_updates, f"memr  {run_path}")
        if console.is_terminal
        else PlainConsole(console, num_updates)
    )
    if logs is not None:
        with suppress(OSError):  # logs are no reason not to run
            found.append(ConsoleLog(logs / CONTROLLER_LOG, num_updates))
    if config.cluster.tensorboard:
        found.append(TensorboardWatcher(run_path))
    return found
