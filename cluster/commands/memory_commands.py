"""Defines the commands `memr memory inspect` and `memr memory query`."""

from typing import Annotated

import typer

from cluster.commands.options import RunArgument
from cluster.watch.terminal import terminal

memory_app = typer.Typer(no_args_is_help=True, help="Look into a run's episodic memory.")


@memory_app.command(name="inspect")
def memory_inspect(run: RunArgument) -> None:
    """Sizes, successes and failures, how near stored questions are to each other, what memory changes."""
    from cluster.commands.memory_views import show_inspect

    show_inspect(terminal(), run)


@memory_app.command(name="query")
def memory_query(
    run: RunArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A question")],
    k: Annotated[int, typer.Option(min=1, help="Neighbours to show")] = 5,
) -> None:
    """The remembered questions nearest to TEXT, with responses, distance and reward."""
    from cluster.commands.memory_views import show_query

    show_query(terminal(), run, text, k)
