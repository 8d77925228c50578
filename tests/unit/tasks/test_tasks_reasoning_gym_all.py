"""Every generator of reasoning_gym: it loads, its problems are the same in every process, right answers are right,
wrong ones and garbage wrong. A sample in the normal suite, all of them in the long one."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from reasoning_gym.factory import DATASETS

from contracts.errors import ConfigError
from contracts.ports import Answer
from contracts.problem import Problem
from tasks.answers import render_answer
from tasks.child_environment import child_environment
from tasks.config import TaskSettings
from tasks.judge import Judge, full_judge
from tasks.reasoning_gym_child import Entries
from tasks.reasoning_gym_entries import Generator, carried_entry, carry
from tasks.reasoning_gym_scorer import SCORED_BY_TEXT, SCORED_EXACTLY_TOO, SCORED_ON_ITS_NUMBERS
from tasks.reasoning_gym_task import ReasoningGymTask

pytestmark = [  # libraries under reasoning_gym leave files open
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ALL = sorted(DATASETS)
HASH_ORDER = ["isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"]
GLOBAL_RANDOM = ["list_functions"]
SAMPLE = [
    *HASH_ORDER,
    *GLOBAL_RANDOM,
    *SCORED_BY_TEXT,
    *SCORED_EXACTLY_TOO,
    *SCORED_ON_ITS_NUMBERS,
    "codeio",
    "composite",
    "graph_color",
]
SAMPLE += [
    "complex_arithmetic",
    "chain_sum",
    "knights_knaves",
    "prime_factorization",
    "propositional_logic",
    "boxnet",
    "zebra_puzzles",
]
PARAMS: dict[str, dict[str, Any]] = {
    "composite": {"datasets": [{"name": name, "weight": 1.0, "config": {}} for name in ("chain_sum", "leg_counting")]}
}
"""The only generator that does not load without parameters."""

KNOWN_ANSWERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "graph_color": lambda metadata: json.dumps(metadata["possible_answer"]),
    "propositional_logic": lambda metadata: str(metadata["example_answer"]),
    "rubiks_cube": lambda metadata: str(metadata["example_correct_answer"]),
}
"""Of generators that give no reference: an answer that their metadata shows."""

NO_KNOWN_ANSWER = {
    "boxnet": "its answer is None, and its metadata holds the puzzle alone",
    "rush_hour": "its answer is None, and its metadata holds the puzzle and the number of moves alone",
}
GARBAGE = [
    "no idea",
    "%$ lorem ipsum <answer \\boxed{",
    "-1e9",
    "[1, 2",
    "1/0",
    "{}",
    "[]",
    "[[7]]",
    "null",
    "(1, 2)",
    "@",
]
GARBAGE += ["9" * 300, "a" * 200, "1:2:3", "√2", "\\frac{1}{0}", "nan", "-inf", "1,,2", "[" * 50, "2**" * 20 + "2"]
SLOW = ["knight_swap", "zebra_puzzles"]
INDICES = (0, 7, 600)


def parametrize(names: list[str], slow: Sequence[str] = ()) -> Any:
    """The sample in the normal suite, the rest and what is slow in the long one."""
    in_sample = set(SAMPLE) - set(slow)
    return [pytest.param(name, marks=() if name in in_sample else pytest.mark.long) for name in names]


def problem(name: str, entries: Entries, index: int) -> Problem:
    entry = entries.entry(1, index)
    return Problem("p", entry["question"], str(entry["answer"] or ""), (), carry(1, index, entry))


def judge_of(name: str) -> Judge:
    settings = {"kind": "reasoning_gym", "generator": name, "generator_params": PARAMS.get(name, {})}
    return full_judge(TaskSettings.model_validate(settings | {"answer_form": "think_answer"}))


def is_right(judge: Judge, problem: Problem, answer: str) -> bool:
    scored = judge.judge(Answer(problem, render_answer(answer, "think_answer"), 5, 10, False))
    assert scored is not None
    return scored.correct


@pytest.mark.parametrize("name", parametrize(ALL))
def test_right_answers_are_right_and_garbage_is_wrong_never_an_error(name: str) -> None:
    entries, judge = Entries(name, PARAMS.get(name, {})), judge_of(name)
    for index in INDICES:
        asked = problem(name, entries, index)
        entry = carried_entry(asked)
        assert entry is not None
        good = asked.answer or (KNOWN_ANSWERS[name](entry["metadata"]) if name in KNOWN_ANSWERS else "")
        assert bool(good) == (name not in NO_KNOWN_ANSWER)
        if good:
            assert is_right(judge, asked, good)
        taken = [text for text in GARBAGE if text != asked.answer and is_right(judge, asked, text)]
        assert taken == []


@pytest.mark.parametrize("name", parametrize([name for name in ALL if name not in NO_KNOWN_ANSWER], SLOW))
def test_the_right_answer_of_another_problem_is_mostly_wrong(name: str) -> None:
    """Mostly: two answers may be the same by chance, yes and no even often."""
    entries, judge = Entries(name, PARAMS.get(name, {})), judge_of(name)
    asked = [problem(name, entries, index) for index in range(1, 9)]
    if not all(one.answer for one in asked):
        pytest.skip("no reference answers")
    others = [(one, other.answer) for one, other in itertools.pairwise(asked) if one.answer != other.answer]
    assert sum(is_right(judge, one, answer) for one, answer in others) <= len(others) / 4


ENTRIES = """
import json, os, random, sys
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # some generators print
from tasks.reasoning_gym_child import Entries
from tasks.reasoning_gym_entries import carry
names, indices, params = json.load(sys.stdin)
random.seed(str(indices))
made = {}
for name in names:
    entries = Entries(name, params.get(name, {}))
    made[name] = {i: carry(1, i, entries.entry(1, i)) for i in indices}
print(json.dumps(made), file=replies, flush=True)
"""


def entries_in_a_child(names: list[str], indices: Sequence[int]) -> dict[str, dict[str, str]]:
    """As the generators' own process makes them: with the environment that it gets, whatever ours is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "12345")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ENTRIES],
            input=json.dumps([names, indices, PARAMS]),
            capture_output=True,
            text=True,
            check=True,
            timeout=280,
            env=child_environment(),
        )
    made: dict[str, dict[str, str]] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize("names", [SAMPLE, pytest.param(ALL, marks=pytest.mark.long)], ids=["sample", "all"])
def test_entries_are_the_same_in_every_process_and_in_any_order(names: list[str]) -> None:
    forwards = entries_in_a_child(names, INDICES)
    backwards = entries_in_a_child(names[::-1], INDICES[::-1])
    assert [name for name in names if forwards[name] != backwards[name]] == []


def test_the_generators_process_makes_these_entries() -> None:
    made = Generator("isomorphic_strings", {})
    expected = entries_in_a_child(["isomorphic_strings"], INDICES)["isomorphic_strings"]
    assert {str(i): carry(1, i, made.entry(1, i)) for i in INDICES} == expected


def test_a_problem_is_scored_on_the_entry_that_it_carries() -> None:
    """polynomial_multiplication could earn no reward before: its entries were made again in the verifier's process."""
    settings = TaskSettings(kind="reasoning_gym", generator="polynomial_multiplication", answer_form="think_answer")
    asked, judge = ReasoningGymTask(settings).train_problem(3), full_judge(settings)
    assert is_right(judge, asked, asked.answer)
    assert not is_right(judge, asked, f"{asked.answer} + 1")


def test_a_problem_of_a_run_before_entries_travelled_is_still_scored() -> None:
    settings = TaskSettings(kind="reasoning_gym", generator="chain_sum", answer_form="think_answer")
    made = Generator("chain_sum", {}).entry(0, 5)
    old = Problem("p", made["question"], made["answer"], (), json.dumps({"stream": 0, "index": 5}))
    judge = full_judge(settings)
    assert is_right(judge, old, old.answer)
    assert not is_right(judge, old, old.answer + "1")


def test_composite_without_its_parts_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"generator_params.*Must specify at least one dataset"):
        Generator("composite", {})
