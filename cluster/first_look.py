"""What `memr train` finds wrong before it starts a process: said at once, not after models have loaded."""

import os
from pathlib import Path

from cluster.config import RunConfig
from contracts.loading import named_data


def refuse_missing_data(config: RunConfig) -> None:
    """Raises LoadError for a data file of the task that is not there. Not asked of a run that has finished."""
    if config.task.kind != "file":
        return
    missing = [
        path
        for name in (config.task.path, config.task.held_out_path)
        if name and not os.path.exists(path := Path(name))
    ]
    if missing:
        from tasks.problem_files import read_rows  # its own words

        with named_data():
            read_rows(missing[0])
