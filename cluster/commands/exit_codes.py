"""Ends every command: its exit code, and one message for an error or an interrupt.

0 done · 2 what was written or named is wrong (a setting, an option, a folder that is no run, a model that does not load):
nothing was tried, and the same line ends the same · 3 it was tried and failed · 130 interrupted.
"""

import sys
from collections.abc import Callable
from typing import NoReturn

from rich.text import Text

from cluster.commands.early_signals import INTERRUPTED, LINE, interruptible
from cluster.watch.terminal import terminal
from contracts.errors import ConfigError, LoadError, MemrError
from loading.load_errors import error_text, missing_package

WRONG, FAILED = 2, 3


def run_command(command: Callable[[], object], name: str) -> None:
    """memr's own errors become one message on stderr and an exit code, never a traceback. name: of the command."""
    with interruptible() as seen:
        try:
            command()
        except ImportError as error:
            _end(missing_package(error))
        except MemrError as error:
            _end(error)
        except OSError as error:
            place = "Look at that path, its permissions and what is free"
            _end(MemrError(f"the operating system refused: {error_text(error)}. {place}"))
        except SystemExit as end:
            if seen and end.code == INTERRUPTED and name != "attempt":  # its supervisor says how to go on
                terminal(stderr=True).print(LINE, soft_wrap=True)
            raise


def _end(error: MemrError) -> NoReturn:
    terminal(stderr=True).print(Text.assemble(("memr: ", "bold red"), str(error)), soft_wrap=True)
    sys.exit(WRONG if isinstance(error, ConfigError | LoadError) else FAILED)
