"""From settings to the parts of the world that other packages use: the task and its verifier."""

from contracts.errors import ConfigError
from contracts.ports import Task, Verifier
from tasks.arithmetic import arithmetic_task
from tasks.config import TaskSettings
from tasks.dotted_path import load_dotted
from tasks.file_task import file_task
from tasks.reasoning_gym_task import ReasoningGymTask
from tasks.verifier import ProcessVerifier

_TASK_METHODS = ("train_problem", "num_train", "held_out", "environment")


def load_task(settings: TaskSettings) -> Task:
    """Raises ConfigError for a task that does not exist, DataError for data that cannot be read."""
    if settings.kind == "arithmetic":
        return arithmetic_task(settings)
    if settings.kind == "reasoning_gym":
        return ReasoningGymTask(settings)
    if settings.kind == "file":
        return file_task(settings)
    return _users_task(settings)


def make_verifier(settings: TaskSettings) -> Verifier:
    """Child processes start when they are first needed; users' code is tried in one at once.

    Raises ConfigError where users' code cannot be loaded.
    """
    return ProcessVerifier(settings)


def _users_task(settings: TaskSettings) -> Task:
    """A class that is constructed with the settings and has the methods of contracts.ports.Task."""
    made = load_dotted(settings.kind, "task.kind")(settings)
    if missing := [name for name in _TASK_METHODS if not hasattr(made, name)]:
        raise ConfigError(f"task.kind = '{settings.kind}': it lacks {', '.join(missing)} of contracts.ports.Task")
    task: Task = made
    return task
