"""README's "own data" as it stands there, and a run over a user's own code that fails, sleeps, forks and exits."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for line in README.splitlines() if re.match(r"memr (check-task|train) .*(task\.|word_problems)", line)]


def memr(*arguments: str, cwd: Path = ROOT, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if "check-task" in c])
def test_what_readme_says_of_own_data_works_word_for_word(command: str, smollm2_dir: Path) -> None:
    done = memr(*shlex.split(command, comments=True)[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "known answers were judged as they should be" in done.stdout


def test_readme_shows_a_training_command_for_own_data() -> None:
    assert "memr train configs/word_problems.toml --set task.path=mine.jsonl" in COMMANDS
    assert len(COMMANDS) >= 5


@pytest.mark.slow
def test_the_shipped_rows_are_found_from_another_directory_and_counted(tmp_path: Path, smollm2_dir: Path) -> None:
    done = memr("check-task", str(ROOT / "configs" / "word_problems.toml"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) training problems, (\d+) held-out ones", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 100
    assert int(counted[2]) == 40


def test_the_shipped_rows_are_those_that_their_script_writes() -> None:
    sys.path.insert(0, str(ROOT / "examples" / "data"))
    try:
        from make_word_problems import NUM_ROWS, make  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    lines = (ROOT / "examples" / "data" / "word_problems.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == make(NUM_ROWS)
    assert len(lines) == 200


HOSTILE = """
import os, time
from contracts.ports import EnvironmentReply
from contracts.problem import Problem
from contracts.rollout import TurnOutcome
from helper import QUESTION

class World:
    count = 0
    def step(self, text):
        World.count += 1
        what = World.count % 20
        if what == 1: return {}["key"]
        if what == 3: os.fork()
        if what == 5: time.sleep(30)
        if what == 7: return None
        if what == 9 and World.count > 40: os._exit(3)
        return EnvironmentReply(TurnOutcome.DONE)

class Sums:
    num_train = 40
    def __init__(self, settings): self.settings = settings
    def problem(self, i):
        question = QUESTION.format(i)
        return Problem(f"sum/{i}", question, str(i + 1), ({"role": "user", "content": question},))
    def train_problem(self, index): return self.problem(index % 40)
    def held_out(self, n): return [self.problem(100 + i) for i in range(min(n, 3))]
    def environment(self, problem): return World()

def close(answer, final):
    import numpy as np
    return np.isclose(float(final), float(answer.problem.answer))

def odd(inputs):
    return None if inputs.answer.problem.answer.endswith(("2", "4", "6")) else 0.5
"""
CONFIG = """
[run]
name = "own"
directory = "runs"
[model]
name = "scripted"
[task]
kind = "tasks/mine.py:Sums"
scorer = "tasks/mine.py:close"
rewards = [{name = "correctness"}, {name = "tasks/mine.py:odd", weight = 0.1}]
environment_timeout_s = 2.0
max_prompt_tokens = 400
[actors]
engine = "scripted"
rollouts_per_group = 8
max_new_tokens = 16
torch_threads = 1
[memory]
encoder = "hash:64"
[learner]
num_updates = 4
torch_threads = 1
[cluster]
groups_per_batch = 2
tensorboard = false
[eval]
problems = 10
every_updates = 0
[alarms]
preflight_truncated = "warn"
preflight_zero_variance = "warn"
preflight_invalid = "warn"
"""


def place(folder: Path, words: str) -> str:
    [line] = [number for number, line in enumerate(HOSTILE.splitlines(), start=1) if words in line]
    return f"{folder}/tasks/mine.py:{line}"


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_a_run_over_code_that_raises_sleeps_forks_and_exits_goes_on_and_tells_each_fault_once(tmp_path: Path) -> None:
    """In a folder `tasks/` of the user's, beside the configuration, which is not the working directory's."""
    folder = tmp_path / "project"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "__init__.py").write_text("raise RuntimeError('memr takes me for its own')")
    (folder / "tasks" / "mine.py").write_text(HOSTILE)
    (folder / "tasks" / "helper.py").write_text("QUESTION = 'What is {} + 1?'")
    (folder / "own.toml").write_text(CONFIG)
    done = memr("train", "own.toml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "3 held-out problems are there, fewer than eval.problems = 10: all are used" in done.stdout
    run = folder / "runs" / "own"
    headlines = [line["headline"] for line in events(run) if line["event"] == "could_not_be_judged"]
    for fault in (
        f"failed at {place(folder, 'if what == 1')} (KeyError): 'key'",
        f"failed at {place(folder, 'def step')} (NoneType): it returned None; it must return an EnvironmentReply",
        f"it was at {place(folder, 'time.sleep')}",
        f"failed at {place(folder, 'def odd')} (NoneType): it returned None; it must return a finite number",
    ):
        assert len([headline for headline in headlines if fault in headline]) == 1, (fault, headlines)
    assert [line for line in events(run) if "lost" in line["event"]] == []
    moved = tmp_path / "moved"
    folder.rename(moved)
    again = memr("resume", "moved/runs/own", "--set", "learner.num_updates=5", *moved_code(moved), cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr


def moved_code(folder: Path) -> list[str]:
    code = folder / "tasks" / "mine.py"
    rewards = f'[{{name="correctness"}}, {{name="{code}:odd", weight=0.1}}]'
    values = (f"task.kind={code}:Sums", f"task.scorer={code}:close", f"task.rewards={rewards}")
    return [argument for value in values for argument in ("--set", value)]
