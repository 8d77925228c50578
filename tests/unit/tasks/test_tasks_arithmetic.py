"""The arithmetic task: finite, disjoint by hash, the same everywhere."""

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import DataError
from contracts.problem import Problem
from tasks.arithmetic import arithmetic_task
from tasks.config import TaskSettings
from tasks.question_hash import question_hash


def all_train(task_settings: TaskSettings) -> list[Problem]:
    task = arithmetic_task(task_settings)
    assert task.num_train is not None
    return [task.train_problem(i) for i in range(task.num_train)]


def result(problem: Problem) -> int:
    match = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", problem.question)
    assert match is not None
    a, b = int(match[1]), int(match[3])
    return a + b if match[2] == "+" else a - b


def test_up_to_twenty_there_are_672_problems_and_at_least_200_are_held_out() -> None:
    task = arithmetic_task(TaskSettings())
    train, held = all_train(TaskSettings()), task.held_out(225)
    assert len({problem.problem_id for problem in [*train, *held]}) == 21 * 21 + 21 * 22 // 2 == 672
    assert task.held_out(226) == held, "as many as there are; look_through notes that they are fewer"


def test_train_and_held_out_are_disjoint_by_hash_and_so_are_twins() -> None:
    train, held = all_train(TaskSettings()), arithmetic_task(TaskSettings()).held_out(225)
    assert not {question_hash(p.question) for p in train} & {question_hash(p.question) for p in held}
    sums = [p for p in held if "+" in p.question]
    twins = {re.sub(r"(\d+) \+ (\d+)", r"\2 + \1", p.question) for p in sums}
    assert not {p.question for p in train} & twins


def test_every_reference_answer_is_right_and_never_negative() -> None:
    for problem in [*all_train(TaskSettings()), *arithmetic_task(TaskSettings()).held_out(200)]:
        assert int(problem.answer) == result(problem) >= 0


@given(seed=st.integers(0, 10**6), epoch=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_every_epoch_is_a_permutation_and_epochs_differ(seed: int, epoch: int) -> None:
    task = arithmetic_task(TaskSettings(seed=seed, max_operand=6))
    assert task.num_train is not None
    size = task.num_train
    this = [task.train_problem(epoch * size + i).problem_id for i in range(size)]
    following = [task.train_problem((epoch + 1) * size + i).problem_id for i in range(size)]
    assert sorted(this) == sorted(following)
    assert len(set(this)) == size
    assert this != following


def test_the_seed_changes_the_order_and_nothing_else() -> None:
    zero, one = TaskSettings(seed=0), TaskSettings(seed=1)
    assert [p.problem_id for p in all_train(zero)] != [p.problem_id for p in all_train(one)]
    assert {p.problem_id for p in all_train(zero)} == {p.problem_id for p in all_train(one)}
    assert arithmetic_task(zero).held_out(200) == arithmetic_task(one).held_out(200)


def test_the_stream_is_the_same_in_another_process() -> None:
    code = (
        "from tasks.arithmetic import arithmetic_task; from tasks.config import TaskSettings; "
        "t = arithmetic_task(TaskSettings(seed=3)); print([t.train_problem(i).problem_id for i in (0, 5, 1000)])"
    )
    env = {"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=env)
    task = arithmetic_task(TaskSettings(seed=3))
    assert done.stdout.strip() == str([task.train_problem(i).problem_id for i in (0, 5, 1000)])


def test_an_index_gives_the_same_problem_whatever_was_asked_before() -> None:
    a, b = arithmetic_task(TaskSettings()), arithmetic_task(TaskSettings())
    forwards = [a.train_problem(i) for i in range(900)]
    assert [b.train_problem(i) for i in reversed(range(900))] == forwards[::-1]


def test_num_train_limits_the_distinct_problems_to_the_same_ones_for_every_seed() -> None:
    few = [{p.problem_id for p in all_train(TaskSettings(num_train=10, seed=seed))} for seed in (0, 1)]
    assert len(few[0]) == 10
    assert few[0] == few[1]


def test_worked_examples_are_neither_trained_nor_held_out() -> None:
    task_settings = TaskSettings(worked_examples=4)
    task = arithmetic_task(task_settings)
    chat = task.train_problem(0).messages
    assert [message["role"] for message in chat] == ["system", *["user", "assistant"] * 4, "user"]
    shown = {message["content"] for message in chat[1:-1] if message["role"] == "user"}
    others = {p.question for p in [*all_train(task_settings), *task.held_out(200)]}
    assert len(shown) == 4
    assert not shown & others


def test_the_twin_of_a_worked_example_is_not_trained_either() -> None:
    """The answer of 3 + 4 would stand in every prompt that asks for 4 + 3."""
    task_settings = TaskSettings(worked_examples=16)
    chat = arithmetic_task(task_settings).train_problem(0).messages
    shown = [message["content"] for message in chat[1:-1] if message["role"] == "user"]
    twins = {re.sub(r"(\d+) \+ (\d+)", r"\2 + \1", question) for question in shown}
    assert len(twins - {*shown}) > 4
    assert not {problem.question for problem in all_train(task_settings)} & twins


def test_a_world_too_small_to_split_says_what_to_change() -> None:
    with pytest.raises(DataError, match="no training problems are left"):
        arithmetic_task(TaskSettings(max_operand=1, worked_examples=16))
