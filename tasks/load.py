"""From settings to the parts of the world that other packages use: the task and its verifier."""

from contracts.ports import Task, Verifier
from tasks.arithmetic import arithmetic_task
from tasks.config import TaskSettings
from tasks.file_task import file_task
from tasks.reasoning_gym_task import ReasoningGymTask
from tasks.users_task import UsersTask, load_users_task
from tasks.verifier import ProcessVerifier


def load_task(settings: TaskSettings) -> Task:
    """Raises ConfigError for a task that does not exist, LoadError for data that cannot be read."""
    if settings.kind == "arithmetic":
        return arithmetic_task(settings)
    if settings.kind == "reasoning_gym":
        return ReasoningGymTask(settings)
    if settings.kind == "file":
        return file_task(settings)
    return UsersTask(load_users_task(settings), settings)


def make_verifier(settings: TaskSettings) -> Verifier:
    """Child processes start when they are first needed; users' code is tried in one at once.

    Raises ConfigError where users' code cannot be loaded.
    """
    return ProcessVerifier(settings)
