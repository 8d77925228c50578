"""What `memr train` finds wrong before it starts a process: said at once, not after models have loaded."""

from pathlib import Path

from cluster.config import RunConfig


def refuse_missing_data(config: RunConfig) -> None:
    """Raises DataError for a data file of the task that is not there."""
    if config.task.kind != "file":
        return
    missing = [
        path for name in (config.task.path, config.task.held_out_path) if name and not (path := Path(name)).exists()
    ]
    if missing:
        from tasks.problem_files import read_rows  # its own words

        read_rows(missing[0])
