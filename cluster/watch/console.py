"""The live console: a run at a glance, in a terminal or as plain lines.

Gets what the recorder wrote (metrics, evaluations, events, status, groups), shows it, and can fail without harm.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cluster.record.events.event import Event, Severity
from cluster.record.events.training import AlarmRaised
from cluster.record.memory_effect import short_text
from cluster.record.run_view import series
from cluster.record.worker_figures import work_text
from cluster.watch.terminal import into
from contracts.rollout import ScoredGroup

SHOWN_UPDATES = 40
SHOWN_INCIDENTS = 4
_SPARKS = "▁▂▃▄▅▆▇█"


def step_text(line: dict[str, Any], num_updates: int) -> str:
    """One update in one plain line."""
    return (
        f"update {line['step']:>4}/{num_updates}  accuracy {line['accuracy']:.2f}  reward {line['reward']:.2f}  "
        f"tokens/answer {line['completion_tokens_mean']:.0f}  lag {line['lag_mean']:.1f}  "
        f"{_memory_text(line)}step {line['step_s']:.1f} s ({waits_text(line)})"
    )


def _memory_text(line: dict[str, Any]) -> str:
    """Empty where memory is off."""
    if line["memory_version"] < 0:
        return ""
    return (
        f"exploit {line['intrinsic_exploit']:.2f}  explore {line['intrinsic_explore']:.2f}  "
        f"memory {line['memory_episodes']} episodes ({short_text(line)})  "
    )


def waits_text(line: dict[str, Any]) -> str:
    """Who waits on whom."""
    return f"waited {line['wait_rollouts_s']:.1f} s for rollouts, {line['wait_memory_s']:.2f} s for memory; update {line['update_s']:.1f} s"


def eval_text(line: dict[str, Any]) -> str:
    """Returns one line on an evaluation."""
    what = (
        f"pass@{line['k']} {line['pass_at_k']:.1%}"
        if line["pass_at_k"] is not None
        else f"accuracy {line['accuracy']:.1%}"
    )
    failed = line.get("scorer_failed", 0)
    return (
        f"eval, version {line['policy_version']}: {what} of {line['n']} held-out problems "
        f"(at most {line['max_new_tokens']} tokens, {line['mean_tokens']:.0f} on average)"
        + (f"; the scorer failed over {failed} answers, which count as wrong" if failed else "")
    )


def event_text(event: Event) -> str:
    """One event in one plain line."""
    return f"{event.label}: {event.headline}"


def spark(values: Sequence[float]) -> str:
    """One line of blocks."""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    return "".join(_SPARKS[int((value - low) / spread * (len(_SPARKS) - 1))] for value in values)


class PlainConsole:
    """A line per update and evaluation; for logs and pipes."""

    def __init__(self, console: Console, num_updates: int) -> None:
        self._console = console
        self._num_updates = num_updates

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind == "metrics":
            self._console.print(step_text(line, self._num_updates), soft_wrap=True)
        elif kind == "eval":
            self._console.print(eval_text(line), soft_wrap=True)

    def show_event(self, event: Event) -> None:
        if event.shown:
            self._console.print(event_text(event), soft_wrap=True)

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        """Transcripts are in rollouts/; a log does not repeat them."""

    def close(self) -> None:
        """Nothing is held."""


class ConsoleLog:
    """What the plain console would show, in a file. Raises OSError where it cannot be opened."""

    def __init__(self, path: Path, num_updates: int) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._plain = PlainConsole(into(self._file), num_updates)

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind != "status":
            self._plain.watch(kind, line)

    def show_event(self, event: Event) -> None:
        self._plain.show_event(event)

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        """Transcripts are in rollouts/."""

    def close(self) -> None:
        self._file.close()


class LiveConsole:
    """Progress with time left, alarms, rewards, who waits on whom, memory, the last transcript."""

    def __init__(
        self, console: Console, num_updates: int, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("updates", total=num_updates, left="")
        self._clock = clock
        self._started = clock()
        self._history: deque[dict[str, Any]] = deque(maxlen=SHOWN_UPDATES)
        self._evals: list[str] = []
        self._status: dict[str, Any] = {}
        self._alarms: dict[str, str] = {}
        self._events: deque[Event] = deque(maxlen=SHOWN_INCIDENTS)
        self._transcript: RenderableType = Text("waiting for the first rollouts …", style="dim")
        self._live = Live(self._render(), console=console, refresh_per_second=4, transient=False)
        self._live.start()

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind == "metrics":
            self._history.append(line)
            done, total = line["step"], self._progress.tasks[0].total or 0
            left = (self._clock() - self._started) / done * (total - done)
            self._progress.update(self._task, completed=done, left=f"about {left / 60:.1f} min left" if left else "")
        elif kind == "eval":
            self._evals.append(eval_text(line))
        elif kind == "status":
            self._status = line
        self._live.update(self._render())

    def show_event(self, event: Event) -> None:
        if isinstance(event, AlarmRaised):
            self._alarms[event.name] = event_text(event)
        elif event.shown:
            self._events.append(event)
        self._live.update(self._render())

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        scored = groups[-1]
        rollout = scored.group.rollouts[0]
        mark, style = ("right", "green") if rollout.correct else ("wrong", "red")
        self._transcript = Text.assemble(
            (scored.group.question.strip()[-300:], "bold"),
            "\n",
            rollout.text.strip()[-400:] or "(nothing)",
            "\n",
            (f"{mark}", style),
            f"   exploit {scored.exploit_G[0]:.2f}  explore {scored.explore_G[0]:.2f}  "
            f"version {scored.group.policy_version}",
        )

    def close(self) -> None:
        self._live.update(self._render())
        self._live.stop()

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._progress]
        parts += [Text(text, style="bold red") for text in self._alarms.values()]
        parts += [
            Text(event_text(event), style="red" if event.severity is Severity.PROBLEM else "yellow")
            for event in self._events
        ]
        if self._history:
            parts.append(_numbers(self._history))
        if self._status:
            parts.append(Text(_flow_text(self._status), style="dim"))
        parts += [Text(text, style="cyan") for text in self._evals[-4:]]
        parts.append(Panel(self._transcript, title="last transcript", title_align="left", border_style="dim"))
        return Panel(Group(*parts), title=self._title, title_align="left")


def _numbers(history: Sequence[dict[str, Any]]) -> Table:
    last = history[-1]
    table = Table.grid(padding=(0, 2))
    rows = [
        ("accuracy in training", f"{last['accuracy']:.2f}", spark(series(history, "accuracy").values_N)),
        *(_memory_rows(history) if last["memory_version"] >= 0 else ()),
        (
            "tokens per answer",
            f"{last['completion_tokens_mean']:.0f}",
            spark(series(history, "completion_tokens_mean").values_N),
        ),
        ("seconds per update", f"{last['step_s']:.1f}", waits_text(last)),
        ("lag, mismatch", f"{last['lag_mean']:.1f}, {last['mismatch_mean']:.4f}", ""),
    ]
    for name, value, extra in rows:
        table.add_row(Text(name, style="bold"), value, Text(extra, style="green"))
    return table


def _memory_rows(history: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    last = history[-1]
    shares = [line.get("bonus_advantage_share", 0.0) for line in history]
    return [
        ("intrinsic", f"exploit {last['intrinsic_exploit']:.2f}, explore {last['intrinsic_explore']:.2f}", ""),
        ("memory changes", short_text(last), spark(shares)),
        ("memory", f"{last['memory_episodes']} episodes, {last['memory_queries']} questions", ""),
    ]


def _flow_text(status: dict[str, Any]) -> str:
    work = work_text(status)
    return (
        f"{status['phase']}: {status['at_workers']} problems at workers, {status['with_memory']} with memory, "
        f"{status['buffered']} ready, {status['eval_leases']} of an evaluation{work and f'; workers: {work}'}"
    )
