"""Says what happens while a run starts and nothing moves yet."""

import time

from rich.console import Console
from rich.text import Text


class StartupLog:
    """Prints each line with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __call__(self, what: str) -> None:
        self._console.print(
            Text.assemble((f"{time.monotonic() - self._started:5.1f} s", "dim"), f"  {what}"), soft_wrap=True
        )
