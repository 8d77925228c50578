"""A task of the user's own: loaded by file or module, its problems checked, its environments stepped elsewhere in time."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contracts.errors import ConfigError
from contracts.ports import Environment, EnvironmentReply
from contracts.rollout import TurnOutcome
from tasks.config import TaskSettings
from tasks.environment import Retry, SingleTurn
from tasks.load import load_task
from tasks.task_data import look_through
from tasks.users_task import UsersTask

MINE = """
import asyncio, ctypes, os, subprocess, time
from contracts.ports import EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from beside import QUESTION

class Guess:
    def __init__(self, answer):
        self.turns, self.answer = 0, answer

    def step(self, text):
        self.turns += 1
        if text == "raise": return {}["key"]
        if text == "sleep": time.sleep(60)
        if text == "nap": time.sleep(1.0)
        if text == "loop":
            while True: pass
        if text == "exit": os._exit(3)
        if text == "quit": raise SystemExit(4)
        if text == "segfault": ctypes.string_at(0)
        if text == "hold": ctypes.PyDLL(None).usleep(60_000_000)
        if text == "none": return None
        if text == "pair": return ("done", "")
        if text == "number": return EnvironmentReply(TurnOutcome.CONTINUE, 3)
        if text == "what": return EnvironmentReply("well", "")
        if text == "fork": os.fork()
        if text == "print": print("x" * 100_000)
        if text == "read": input()
        if text == self.answer: return EnvironmentReply(TurnOutcome.DONE)
        return EnvironmentReply(TurnOutcome.CONTINUE, f"turn {self.turns}")

    def close(self):
        open("closed", "a").write("x")

class Plain:
    num_train = 5
    def __init__(self, settings): pass
    def train_problem(self, index): return Problem(f"p{index}", QUESTION, "1", ({"role": "user", "content": QUESTION},))
    def held_out(self, n): return []

def ours(settings):
    from tasks.arithmetic import arithmetic_task
    return arithmetic_task(settings.model_copy(update={"kind": "arithmetic", "environment": "retry"}))

class Later:
    async def step(self, text):
        await asyncio.sleep(60 if text == "sleep" else 0.01)
        return EnvironmentReply(TurnOutcome.DONE, "later")

class Mine:
    num_train = 5
    def __init__(self, settings): self.settings = settings
    def problem(self, i): return Problem(f"p{i}", QUESTION, str(i), ({"role": "user", "content": QUESTION},))
    def train_problem(self, index): return self.problem(index % 5)
    def held_out(self, n): return [self.problem(100 + i) for i in range(min(n, 3))]
    def environment(self, problem): return Guess(problem.answer)

class Async(Mine):
    def environment(self, problem): return Later()

class Unopened(Mine):
    def environment(self, problem): raise KeyError("no world")

class Stepless(Mine):
    def environment(self, problem): return 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("QUESTION = 'Which number?'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "pytest-of" not in entry])
    return tmp_path


@pytest.fixture
def opened() -> Iterator[list[UsersTask]]:
    tasks: list[UsersTask] = []
    yield tasks
    for task in tasks:
        task.close()


def load(folder: Path, opened: list[UsersTask], name: str = "Mine", limit_s: float = 20.0) -> UsersTask:
    task = load_task(TaskSettings(kind=f"{folder}/mine.py:{name}", environment_timeout_s=limit_s))
    assert isinstance(task, UsersTask)
    opened.append(task)
    return task


async def step(environment: Environment, text: str) -> EnvironmentReply:
    given = environment.step(text)
    assert not isinstance(given, EnvironmentReply)
    return await given


def steps(task: UsersTask, *texts: str) -> list[EnvironmentReply]:
    """Each in a rollout of its own, all at the same time."""

    async def all_of_them() -> list[EnvironmentReply]:
        problem = task.train_problem(4)
        return await asyncio.gather(*(step(task.environment(problem), text) for text in texts))

    return asyncio.run(all_of_them())


def test_a_task_is_never_asked_for_what_lies_beyond_its_training_problems(tmp_path: Path) -> None:
    """Beyond them one keeps what it holds out: 1,792 different problems were trained on of a task that had 100."""
    (tmp_path / "mine.py").write_text(
        "from contracts.problem import Problem\n"
        "class Mine:\n"
        "    num_train = 3\n"
        "    def __init__(self, settings): pass\n"
        "    def train_problem(self, index): return Problem(f'p{index}', f'{index}?', '1', ({'role': 'user', 'content': f'{index}?'},))\n"
        "    def held_out(self, n): return [self.train_problem(3 + i) for i in range(n)]\n"
    )
    task = load_task(TaskSettings(kind=f"{tmp_path}/mine.py:Mine"))
    assert [task.train_problem(i).problem_id for i in range(7)] == ["p0", "p1", "p2", "p0", "p1", "p2", "p0"]
    assert [problem.problem_id for problem in task.held_out(2)] == ["p3", "p4"]


def test_a_file_beside_others_is_a_task(folder: Path, opened: list[UsersTask]) -> None:
    task = load(folder, opened)
    assert (task.num_train, task.train_problem(7).problem_id, len(task.held_out(9))) == (5, "p2", 3)


@pytest.mark.parametrize(("name", "kind"), [("Plain", SingleTurn), ("ours", Retry)])
def test_a_task_without_an_environment_of_the_users_needs_no_process(
    folder: Path, opened: list[UsersTask], name: str, kind: type
) -> None:
    task = load(folder, opened, name)
    assert isinstance(task.environment(task.train_problem(0)), kind)


def test_an_environment_remembers_its_rollout_and_no_other(folder: Path, opened: list[UsersTask]) -> None:
    task = load(folder, opened)

    async def two_rollouts() -> list[str]:
        problem = task.train_problem(4)
        one, other = task.environment(problem), task.environment(problem)
        return [(await step(world, "9")).text for world in (one, one, other, one)]

    assert asyncio.run(two_rollouts()) == ["turn 1", "turn 2", "turn 1", "turn 3"]
    assert steps(task, "4")[0].outcome is TurnOutcome.DONE


def test_async_environments_are_awaited(folder: Path, opened: list[UsersTask]) -> None:
    assert steps(load(folder, opened, "Async"), "x") == [EnvironmentReply(TurnOutcome.DONE, "later")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise", "mine.py:14 (KeyError): 'key'"),
        ("quit", "mine.py:20 (SystemExit): 4"),
        ("none", "mine.py:12 (NoneType): it returned None; it must return an EnvironmentReply"),
        ("pair", "mine.py:12 (tuple): it returned ('done', '')"),
        ("number", "(EnvironmentReply): it returned"),
        ("what", "(str): it returned 'well'; it must return one of continue, done, fault, limit as outcome"),
        ("read", "mine.py:29 (EOFError)"),
    ],
)
def test_what_an_environment_does_wrong_is_a_fault_with_file_and_line(
    folder: Path, opened: list[UsersTask], text: str, told: str
) -> None:
    bad, good = steps(load(folder, opened), text, "4")
    assert bad.outcome is TurnOutcome.FAULT
    assert told in bad.text
    assert "the environment of task.kind = 'mine.py:Mine' failed at" in bad.text
    assert good.outcome is TurnOutcome.DONE


@pytest.mark.parametrize(("name", "told"), [("Unopened", "mine.py:63 (KeyError): 'no world'"), ("Stepless", "'step'")])
def test_a_world_that_cannot_be_opened_is_a_fault(folder: Path, opened: list[UsersTask], name: str, told: str) -> None:
    [reply] = steps(load(folder, opened, name), "x")
    assert reply.outcome is TurnOutcome.FAULT
    assert told in reply.text


@pytest.mark.parametrize(("text", "line"), [("sleep", 15), ("loop", 18)])
def test_a_step_that_does_not_come_back_ends_its_own_rollout_alone(
    folder: Path, opened: list[UsersTask], text: str, line: int
) -> None:
    task = load(folder, opened, limit_s=1.0)
    bad, good = steps(task, text, "4")
    assert bad.text == (
        "the environment of task.kind = 'mine.py:Mine' was not back within task.environment_timeout_s = 1, "
        f"it was at {folder}/mine.py:{line}"
    )
    assert good.outcome is TurnOutcome.DONE
    assert steps(task, "4")[0].outcome is TurnOutcome.DONE


def test_an_async_step_that_does_not_come_back_is_a_fault(folder: Path, opened: list[UsersTask]) -> None:
    [bad] = steps(load(folder, opened, "Async", limit_s=1.0), "sleep")
    assert bad.outcome is TurnOutcome.FAULT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exit", "ended with exit code 3"),
        ("segfault", "ended by signal 11 (SIGSEGV)"),
        ("hold", "answered nothing within 4 s, it was at {folder}/mine.py:22"),
    ],
)
def test_a_step_that_takes_its_process_along_is_a_fault_and_the_next_has_another(
    folder: Path, opened: list[UsersTask], text: str, told: str
) -> None:
    task = load(folder, opened, limit_s=1.0)
    [bad] = steps(task, text)
    assert bad.outcome is TurnOutcome.FAULT
    assert told.format(folder=folder) in bad.text
    assert steps(task, "4")[0].outcome is TurnOutcome.DONE


def test_a_rollout_whose_environment_went_with_its_process_is_told_so(folder: Path, opened: list[UsersTask]) -> None:
    """Not that the user's code failed: the next process knows neither environment nor problem."""
    task = load(folder, opened)

    async def two_rollouts() -> tuple[EnvironmentReply, EnvironmentReply]:
        open_one, fatal = task.environment(task.train_problem(4)), task.environment(task.train_problem(4))
        assert (await step(open_one, "9")).outcome is TurnOutcome.CONTINUE
        await step(fatal, "exit")
        return await step(open_one, "4"), await step(task.environment(task.train_problem(4)), "4")

    lost, fresh = asyncio.run(two_rollouts())
    assert lost.outcome is TurnOutcome.FAULT
    assert lost.text == "the process that held this rollout's environment ended meanwhile"
    assert fresh.outcome is TurnOutcome.DONE


@pytest.mark.parametrize("text", ["fork", "print"])
def test_what_forks_and_prints_has_one_reply(folder: Path, opened: list[UsersTask], text: str) -> None:
    task = load(folder, opened)
    replies = steps(task, text, "4", text)
    assert [reply.outcome for reply in replies] == [TurnOutcome.CONTINUE, TurnOutcome.DONE, TurnOutcome.CONTINUE]


def test_steps_that_wait_wait_together(folder: Path, opened: list[UsersTask]) -> None:
    """One after the other they would take longer than each may: 40 naps of a second against a limit of 20 for each."""
    task = load(folder, opened)
    replies = steps(task, *["nap"] * 40)
    assert {reply.outcome for reply in replies} == {TurnOutcome.CONTINUE}


def test_a_closed_environment_hears_it(folder: Path, opened: list[UsersTask]) -> None:
    task = load(folder, opened)

    async def one_rollout() -> None:
        world = task.environment(task.train_problem(4))
        await step(world, "9")
        world.close()  # type: ignore[attr-defined]

    asyncio.run(one_rollout())
    until = time.monotonic() + 30
    while not (folder / "closed").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_closing_the_task_ends_the_process_and_what_it_forked(folder: Path, opened: list[UsersTask]) -> None:
    task = load(folder, opened)
    steps(task, "fork")
    task.close()
    ours = [p for p in psutil.Process(os.getpid()).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert not [p for p in ours if "environment_child" in " ".join(p.cmdline())]


WRONG = """
from contracts.problem import Problem
CHAT = ({"role": "user", "content": "q"},)

class Task:
    num_train = 3
    def __init__(self, settings): pass
    def train_problem(self, index): return Problem("p", "q", "a", CHAT)
    def held_out(self, n): return []
    def environment(self, problem): ...

class IntId(Task):
    def train_problem(self, index): return Problem(index, "q", "a", CHAT)
class IntAnswer(Task):
    def train_problem(self, index): return Problem("p", "q", 7, CHAT)
class NoAnswer(Task):
    def train_problem(self, index): return Problem("p", "q", None, CHAT)
class NoMessages(Task):
    def train_problem(self, index): return Problem("p", "q", "a", ())
class TextMessages(Task):
    def train_problem(self, index): return Problem("p", "q", "a", "q")
class Surrogate(Task):
    def train_problem(self, index): return Problem("p", "q\\ud800", "a", CHAT)
class Nothing(Task):
    def train_problem(self, index): pass
class Raises(Task):
    def train_problem(self, index): return {}["x"]
class HeldOutNone(Task):
    def held_out(self, n): return None
class HeldOutIds(Task):
    def held_out(self, n): return [Problem("h", "q", "a", CHAT), Problem(3, "q", "a", CHAT)]
class NumMethod(Task):
    def num_train(self): return 3
class NumZero(Task):
    num_train = 0
class Constructor(Task):
    def __init__(self, settings): self.size = settings.generator_params["size"]
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "IntId",
            r"train_problem \(.*wrong\.py:13\): train_problem\(0\) gave a problem with problem_id = 0, a int; it mus",
        ),
        ("IntAnswer", r"answer = 7, a int; it must be a text"),
        ("NoAnswer", r"answer = None, a NoneType; it must be a text: str\(\.\.\), '' for none"),
        ("NoMessages", r"messages = \(\); they must be"),
        ("TextMessages", r"messages = 'q'; they must be"),
        ("Surrogate", r"whose question holds a NUL character or half of a surrogate pair"),
        ("Nothing", r"gave None; it must give a contracts\.problem\.Problem"),
        ("Raises", r"failed at .*wrong\.py:27 \(KeyError\): 'x'"),
        ("HeldOutNone", r"gave None; it must give a list of problems"),
        ("HeldOutIds", r"held_out\(4\)\[1\] gave a problem with problem_id = 3"),
        ("NumMethod", r"num_train is <bound method .*A method needs @property"),
        ("NumZero", r"num_train is 0; it must be a whole number above 0"),
        ("Constructor", r"failed at .*wrong\.py:37 \(KeyError\): 'size'"),
    ],
)
def test_a_task_that_gives_no_problems_is_a_wrong_configuration(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    with pytest.raises(ConfigError, match=rf"task\.kind = 'wrong\.py:{name}'.*{told}"):
        look_through(load_task(TaskSettings(kind=f"{tmp_path}/wrong.py:{name}")), 4)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.py", "1 / 0", r"loading a\.py failed: ZeroDivisionError: division by zero \(.*a\.py:1\)"),
        ("a.py", "def f(:", r"loading a\.py failed: SyntaxError: .*a\.py:1\)"),
        ("a.py", "import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \(.*a\.py:1\)"),
        ("a.py", "x = 1", r"has no 'f'"),
        ("b.py", "", r"no such file: .*a\.py. A path is relative to the configuration file"),
    ],
)
def test_code_that_cannot_be_loaded_says_why(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_task(TaskSettings(kind=f"{tmp_path}/a.py:f"))


def test_a_module_of_the_users_with_the_name_of_one_of_ours_gets_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"'tasks' is a package of memr's own.*name the file, 'tasks/mine\.py:Mine'"):
        load_task(TaskSettings(kind="tasks.mine:Mine"))


def test_a_file_in_a_folder_named_as_one_of_our_packages_is_a_task(
    folder: Path, opened: list[UsersTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tasks").mkdir()
    for name in ("mine.py", "beside.py"):
        (folder / name).rename(folder / "tasks" / name)
    task = load(folder / "tasks", opened)
    assert steps(task, "4")[0].outcome is TurnOutcome.DONE


ODD = """
import enum
from contracts.problem import Problem

class Name(str, enum.Enum):
    A = "a"

class Text(str): pass

ONCE = iter(({"role": "user", "content": "q"},))

class Odd:
    num_train = 1
    def __init__(self, settings): pass
    def train_problem(self, index): return Problem(IDENTITY, "q?", "1", MESSAGES)
    def held_out(self, n): return []
"""
ASKED = '({"role": "user", "content": "q"},)'


def odd_task(tmp_path: Path, identity: str = "'1'", messages: str = ASKED) -> UsersTask:
    path = tmp_path / "odd.py"
    path.write_text(ODD.replace("IDENTITY", identity).replace("MESSAGES", messages))
    made = load_task(TaskSettings(kind=f"{path}:Odd"))
    assert isinstance(made, UsersTask)
    return made


@pytest.mark.parametrize(
    "messages",
    [
        "ONCE",
        '{"role": "user", "content": "q"}',
        '({"role": "user", "content": "q\\ud800"},)',
        '({"role": "user", "content": "q\\0"},)',
        '({"role": "user", "content": "q", "image": b"x"},)',
    ],
)
def test_messages_that_no_log_or_template_takes_are_refused_with_the_line(tmp_path: Path, messages: str) -> None:
    with pytest.raises(
        ConfigError, match=r"train_problem \(.*odd\.py:\d+\): train_problem\(0\) gave a problem with .*messages?"
    ):
        odd_task(tmp_path, messages=messages).train_problem(0)


@pytest.mark.parametrize("identity", ["Name.A", "Text('a')"])
def test_texts_of_classes_that_other_processes_lack_become_plain(tmp_path: Path, identity: str) -> None:
    messages = "({'role': Text('user'), 'content': Text('q'), 'extra': 1},)"
    problem = odd_task(tmp_path, identity, messages).train_problem(0)
    assert problem.problem_id == "a"
    assert type(problem.problem_id) is str
    assert {type(problem.messages[0][key]) for key in ("role", "content")} == {str}
    assert dict(problem.messages[0]) == {"role": "user", "content": "q", "extra": 1}


def test_a_property_that_raises_is_the_users_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(ODD.replace("num_train = 1", "num_train = property(lambda self: 1 / 0)"))
    with pytest.raises(ConfigError, match=r"failed at .*odd\.py:\d+ \(ZeroDivisionError\)"):
        _ = load_task(TaskSettings(kind=f"{path}:Odd")).num_train
