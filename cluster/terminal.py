"""The terminal prints text as it is: settings, paths and answers hold [brackets], which would be taken for markup."""

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """Styles are given by rich.text.Text, never by markup in a string."""
    return Console(stderr=stderr, markup=False, highlight=False)
