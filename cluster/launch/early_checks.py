"""Checks what can be checked before anything is loaded, for `memr train`, `check-task` and `eval`."""

import os
from pathlib import Path

from cluster.config.run_config import RunConfig
from loading.dotted_path import CODE_SUFFIX, load_dotted, split_code
from loading.load_errors import named_data


def refuse_missing_files(config: RunConfig) -> None:
    """Raises LoadError for a data file of the task that is not there, ConfigError for one with code of the user's. Not asked
    of a run that has finished."""
    _refuse_missing_code(config)
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


def _refuse_missing_code(config: RunConfig) -> None:
    task = config.task
    named: dict[str, list[str | None]] = {
        "task.kind": [task.kind],
        "task.scorer": [task.scorer],
        "task.rewards": [*(part.name for part in task.rewards)],
    }
    for setting, paths in named.items():
        for path in paths:
            file, _ = split_code(path or "")
            if file.endswith(CODE_SUFFIX) and not Path(file).exists():
                load_dotted(path or "", setting)  # its own words
