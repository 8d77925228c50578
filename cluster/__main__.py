"""`python -m cluster` and `memr`: memr's packages first, whatever the working directory holds, then the command line."""

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line, with memr's own packages first on the import path."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the next lines; `put_first` orders all of it
    from cluster.commands.early_signals import end_at_once
    from loading.own_packages import put_first

    end_at_once()
    put_first()
    from cluster.commands.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
