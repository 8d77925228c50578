"""The terminal prints text as it is: settings, paths and answers hold [brackets], which would be taken for markup."""

from typing import IO

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """Styles are given by rich.text.Text, never by markup in a string."""
    return Console(stderr=stderr, markup=False, highlight=False)


def into(file: IO[str]) -> Console:
    """The same into a file."""
    return Console(file=file, markup=False, highlight=False)
