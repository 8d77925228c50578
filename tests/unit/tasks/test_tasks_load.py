"""Tasks and verifiers from settings, users' own included."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Scored
from tasks.config import TaskSettings
from tasks.judge import full_judge
from tasks.load import load_task, make_verifier
from tasks.problem_list import ProblemList
from tasks.reasoning_gym_task import ReasoningGymTask

USERS_TASK = """
from tasks.arithmetic import arithmetic_task

class Mine:
    num_train = None
    def __init__(self, settings):
        self.size = settings.generator_params["size"]
        self._inner = arithmetic_task(settings.model_copy(update={"kind": "arithmetic"}))
    def train_problem(self, index): return self._inner.train_problem(index % self.size)
    def held_out(self, n): return self._inner.held_out(n)
    def environment(self, problem): return self._inner.environment(problem)

class Half:
    def __init__(self, settings): pass

def even(answer, final):
    return final is not None and int(final) % 2 == 0

def shout(inputs):
    return float(inputs.answer.text.isupper())
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_own_task.py").write_text(USERS_TASK)
    (tmp_path / "users_broken_task.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_own_task", raising=False)
    return "users_own_task"


def test_kinds_give_their_tasks(tmp_path: Path) -> None:
    rows = "".join(f'{{"question": "{i}?", "answer": {i}}}\n' for i in range(40))
    (tmp_path / "a.jsonl").write_text(rows)
    assert isinstance(load_task(TaskSettings()), ProblemList)
    assert isinstance(load_task(TaskSettings(kind="file", path=str(tmp_path / "a.jsonl"))), ProblemList)
    assert isinstance(load_task(TaskSettings(kind="reasoning_gym")), ReasoningGymTask)


def test_a_users_task_is_constructed_with_the_settings(users_module: str) -> None:
    task = load_task(TaskSettings(kind=f"{users_module}:Mine", generator_params={"size": 3}))
    assert len({task.train_problem(i).problem_id for i in range(30)}) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("users_own_task:Half", "lacks train_problem, num_train, held_out of"),
        ("users_own_task:Absent", "module users_own_task has no 'Absent'"),
        ("no_such_module_at_all:Mine", "no module 'no_such_module_at_all'.*PYTHONPATH"),
        ("users_broken_task:Mine", "importing users_broken_task failed: ZeroDivisionError"),
        ("users_own_task:", "expected FILE.py:name or package.module:name"),
    ],
)
def test_a_users_task_that_cannot_be_loaded_says_why(users_module: str, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(TaskSettings(kind=path))


def test_users_scorer_and_reward_run_in_the_child_and_decide(users_module: str) -> None:
    settings = TaskSettings.model_validate(
        {
            "scorer": f"{users_module}:even",
            "rewards": [{"name": "correctness"}, {"name": f"{users_module}:shout", "weight": 0.5}],
            "verifier_processes": 1,
        }
    )
    problem = Problem("p", "an even number?", "", ())
    verifier = make_verifier(settings)
    try:
        verdicts = verifier.verify([Answer(problem, text, 3, 10, False) for text in ("SAY 4", "5", "none")])
    finally:
        verifier.close()
    assert verdicts == [
        Scored(1.5, True, {"correctness": 1.0, f"{users_module}:shout": 0.5}),
        Scored(0.0, False, {"correctness": 0.0, f"{users_module}:shout": 0.0}),
        Scored(0.0, False, {"correctness": 0.0, f"{users_module}:shout": 0.0}),
    ]
    assert users_module not in sys.modules


def test_a_users_reward_that_cannot_be_loaded_fails_before_the_first_answer(users_module: str) -> None:
    with pytest.raises(ConfigError, match="module users_own_task has no 'absent'"):
        make_verifier(TaskSettings.model_validate({"rewards": [{"name": f"{users_module}:absent"}]}))


def test_settings_and_the_verifiers_child_load_without_torch() -> None:
    code = (
        "import sys, tasks.config, tasks.verifier_child; from tasks.judge import full_judge; "
        "full_judge(tasks.config.TaskSettings()); full_judge(tasks.config.TaskSettings(kind='reasoning_gym')); "
        "print([name for name in ('torch', 'transformers', 'ray', 'faiss') if name in sys.modules])"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=env
    )
    assert done.stdout.strip() == "[]"


MINE = """
from pathlib import Path
import math as lengthy

LENGTHS = (1, 2)

def length(inputs): return 0.5
def brief(inputs): return 0.5
def score(answer, final): return True
def _hidden(inputs): return 0.5

class World: pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_rewards_of_mine.py").write_text(MINE)
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "__init__.py").touch()
    (tmp_path / "package_of_mine" / "rewards.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own_rewards_of_mine", "package_of_mine", "package_of_mine.rewards"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize("where", ["{}/own_rewards_of_mine.py", "own_rewards_of_mine", "package_of_mine.rewards"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"rewards": [{"name": "{}:lenght"}]},
            r"task\.rewards = .*has no 'lenght'\. Did you mean 'length'\? Functions there: brief, length, score$",
        ),
        (
            {"scorer": "{}:Score"},
            r"task\.scorer = .*has no 'Score'\. Did you mean 'score'\? Functions there: brief, length, score$",
        ),
        ({"scorer": "{}:xyz"}, r"task\.scorer = .*has no 'xyz'\. Functions there: brief, length, score$"),
    ],
)
def test_a_misspelt_function_is_refused_with_the_near_name_and_what_is_there(
    mine: Path, where: str, settings: dict[str, Any], says: str
) -> None:
    named = json.loads(json.dumps(settings).replace("{}", where.format(mine)))
    with pytest.raises(ConfigError, match=f"^{says}"):
        full_judge(TaskSettings.model_validate(named))


def test_the_verifier_refuses_it_in_the_same_words(mine: Path) -> None:
    """It is loaded in a child, whose start did not fail: nothing is said of processes."""
    with pytest.raises(ConfigError, match=r"^task\.scorer = .*Did you mean 'score'\?"):
        make_verifier(TaskSettings(scorer="own_rewards_of_mine:scor"))


@pytest.mark.parametrize("where", ["{}/own_rewards_of_mine.py", "own_rewards_of_mine", "package_of_mine.rewards"])
def test_a_misspelt_class_of_a_task_is_refused_with_the_near_name(mine: Path, where: str) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.kind = .*has no 'Wrld'\. Did you mean 'World'\? Classes there: World$"
    ):
        load_task(TaskSettings(kind=f"{where.format(mine)}:Wrld"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("{}/own_reward_of_mine.py:World", r"no such file: .*Did you mean '/.*/own_rewards_of_mine\.py'\? A path is"),
        ("own_reward_of_mine:World", r"no module 'own_reward_of_mine'\. Did you mean 'own_rewards_of_mine'\? Install"),
        ("package_of_mine.reward:World", r"no module .*Did you mean 'package_of_mine\.rewards'\?"),
        ("pakage_of_mine.rewards:World", r"no module 'pakage_of_mine'\. Did you mean 'package_of_mine'\?"),
    ],
)
def test_a_misspelt_file_or_module_is_refused_with_the_near_name(mine: Path, kind: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_task(TaskSettings(kind=kind.format(mine)))


MISSPELT = """
class Task:
    num_train = 3
    def __init__(self, settings): pass
    def {train}(self, index): ...
    def held_out(self, n): return []
    def {environment}(self, problem): ...
"""


@pytest.mark.parametrize(
    ("train", "environment", "says"),
    [
        (
            "train_problem",
            "enviroment",
            r"it has 'enviroment' and no 'environment', so every rollout would be one question",
        ),
        (
            "train_problems",
            "environment",
            r"it lacks train_problem of contracts\.ports\.Task \(it has 'train_problems'\)$",
        ),
    ],
)
def test_a_misspelt_member_of_a_task_is_refused(tmp_path: Path, train: str, environment: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(MISSPELT.format(train=train, environment=environment))
    with pytest.raises(ConfigError, match=says):
        load_task(TaskSettings(kind=f"{tmp_path}/mine.py:Task"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys\nsys.exit('usage: mine.py FILE')\n", r"loading mine\.py failed: SystemExit: usage: .*mine\.py:2"),
        ("raise SystemExit(0)\n", r"loading mine\.py failed: SystemExit: 0 .*mine\.py:1"),
        ("Mine = 5\n", r"'Mine' in .*mine\.py is 5, of type int; name a class"),
        ("from pathlib import Path as other\n", "has no 'Mine'"),
    ],
)
def test_a_users_file_that_ends_the_process_or_holds_no_code_is_one_sentence(
    tmp_path: Path, code: str, says: str
) -> None:
    """A script that was written to be run ended memr with its own exit code, and without a word."""
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ConfigError, match=says):
        load_task(TaskSettings(kind=f"{tmp_path / 'mine.py'}:Mine"))
