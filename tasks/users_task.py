"""A task of the user's own: its problems are checked where they are taken, its environments live in a process of their own.

class named by task.kind --TaskSettings--> methods of contracts.ports.Task --checked--> Problem | ConfigError with file, line
"""

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from contracts.errors import ConfigError, MemrError
from contracts.ports import Environment, Task
from contracts.problem import Problem
from loading.dotted_path import load_dotted, short_name
from loading.users_code import UsersCodeError, call, defined_at, failure_text, plain, shown
from tasks.config import TaskSettings
from tasks.environment import SingleTurn
from tasks.environment_host import EnvironmentHost, HostedEnvironment

_METHODS = ("train_problem", "num_train", "held_out")
_TEXTS = ("problem_id", "question", "answer", "metadata")


def load_users_task(settings: TaskSettings) -> Task:
    """The user's own object, constructed with the settings; it may lack an environment. Raises ConfigError with the way out."""
    users_class = load_dotted(settings.kind, "task.kind")
    what = f"task.kind = '{short_name(settings.kind)}'"
    try:
        made = call(what, users_class, settings)
    except UsersCodeError as error:
        if isinstance(error.__cause__, MemrError):
            raise error.__cause__ from error
        raise ConfigError(str(error)) from error
    if missing := [name for name in _METHODS if not _has(made, name)]:
        near = ", ".join(f"it has '{name}'" for name in (_near_member(made, name) for name in missing) if name)
        raise ConfigError(f"{what}: it lacks {', '.join(missing)} of contracts.ports.Task{near and f' ({near})'}")
    if not _has(made, "environment") and (name := _near_member(made, "environment")):
        raise ConfigError(
            f"{what}: it has '{name}' and no 'environment', so every rollout would be one question and one answer. Did you mean "
            "'environment'? If not, give it a name that is not so near"
        )
    task: Task = made
    return task


class UsersTask:
    """Implements contracts.ports.Task around one. Raises ConfigError for what it raises and for what is no problem."""

    def __init__(self, task: Task, settings: TaskSettings) -> None:
        self._task = task
        self._what = f"task.kind = '{short_name(settings.kind)}'"
        self._host = EnvironmentHost(settings)
        self._own = _own_environment(task)

    @property
    def num_train(self) -> int | None:
        number = plain(self._asked(getattr, self._task, "num_train"))
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ConfigError(
                f"{self._what}: num_train is {shown(number)}; it must be a whole number above 0, or None where training "
                "problems have no end. A method needs @property"
            )
        return None if number is None else int(number)

    @property
    def num_held_out(self) -> int | None:
        """None where the task does not say."""
        number = getattr(self._task, "num_held_out", None)
        return number if isinstance(number, int) else None

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(map(str, getattr(self._task, "notes", ())))

    def train_problem(self, index: int) -> Problem:
        """The task is asked for indices below its num_train alone: what lies beyond may be what it holds out."""
        number = self.num_train
        if number is not None:
            index %= number
        return self._checked(self._asked(self._task.train_problem, index), self._task.train_problem, f"({index})")

    def held_out(self, n: int) -> list[Problem]:
        found = self._asked(self._task.held_out, n)
        if not isinstance(found, list | tuple):
            raise ConfigError(
                f"{self._place(self._task.held_out)}: gave {shown(found)}; it must give a list of problems"
            )
        return [self._checked(problem, self._task.held_out, f"({n})[{i}]") for i, problem in enumerate(found[:n])]

    def environment(self, problem: Problem) -> Environment:
        return HostedEnvironment(self._host, problem) if self._own is None else self._own(problem)

    def close(self) -> None:
        """Ends the environments' process."""
        self._host.close()

    def _asked(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except MemrError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                failure_text(self._what, error, type(self._task) if function is getattr else function)
            ) from error

    def _place(self, method: Any) -> str:
        return f"{self._what}, {method.__name__} ({defined_at(method)})"

    def _checked(self, problem: Any, method: Any, call_: str) -> Problem:
        if faults := list(_faults(problem)):
            raise ConfigError(f"{self._place(method)}: {method.__name__}{call_} gave {'; '.join(faults)}")
        assert isinstance(problem, Problem)
        return _in_plain_texts(problem)


def _own_environment(task: Task) -> Callable[[Problem], Environment] | None:
    """Where the task has no environment, or one that memr made: these need no process. None for users' code."""
    method = getattr(task, "environment", None)
    if method is None:
        return lambda _: SingleTurn()
    return task.environment if str(getattr(method, "__module__", "")).startswith("tasks.") else None


def _faults(problem: Any) -> Iterator[str]:
    if not isinstance(problem, Problem):
        yield f"{shown(problem)}; it must give a contracts.problem.Problem"
        return
    for name in _TEXTS:
        value = getattr(problem, name)
        if not isinstance(value, str):
            yield f"a problem with {name} = {shown(value)}, a {type(value).__name__}; it must be a text: str(..), '' for none"
        elif _unwritable(value):
            yield f"a problem whose {name} holds a NUL character or half of a surrogate pair, which no log takes"
    if problem.problem_id == "":
        yield "a problem with an empty problem_id; memory and the ledger go by it"
    chat = problem.messages
    if not isinstance(chat, list | tuple) or not chat or not all(map(_is_message, chat)):
        yield f'a problem with messages = {shown(chat)}; they must be ({{"role": "user", "content": "a text"}}, ..)'
    elif any(_unwritable(message["content"]) for message in chat):
        yield "a problem with a message that holds a NUL character or half of a surrogate pair, which no tokenizer takes"


def _unwritable(text: str) -> bool:
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)


def _is_message(message: Any) -> bool:
    """Other keys may be there, which the template reads: what JSON holds."""
    if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
        return False
    try:
        json.dumps(message)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _in_plain_texts(problem: Problem) -> Problem:
    """The same without subclasses of str, whose classes other processes do not have."""
    texts = {name: str.__str__(getattr(problem, name)) for name in _TEXTS}
    messages: Any = tuple(
        {key: str.__str__(value) if isinstance(value, str) else value for key, value in message.items()}
        for message in problem.messages
    )
    return replace(problem, **texts, messages=messages)


def _near_member(made: Any, name: str) -> str:
    """How the class spells it, or nothing."""
    close = difflib.get_close_matches(name, [key for key in dir(type(made)) if key != name], n=1, cutoff=0.8)
    return close[0] if close else ""


def _has(made: Any, name: str) -> bool:
    """Through users' own __getattr__ too, which may raise anything."""
    try:
        return hasattr(made, name)
    except Exception:  # noqa: BLE001  it is there, and says why it does not work when it is asked
        return True
