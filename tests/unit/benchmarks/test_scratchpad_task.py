"""The scratchpad task: its steps by hand, who judges its answers, names that never change, and a clean split."""

import hashlib

from benchmarks.scratchpad_task import KIND, terms_of, worked
from benchmarks.tiny_model import WORLDS
from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Scored
from tasks.config import TaskSettings
from tasks.load import load_task, make_verifier

PINNED, PINNED_TRAIN = "b3a624c9efdb0734", 6418
SETTINGS = WORLDS["scratchpad"].settings


def verdicts(problem: Problem, *texts: str) -> list[bool]:
    verifier = make_verifier(SETTINGS)
    found = verifier.verify([Answer(problem, text, 20, 36, truncated=False) for text in texts])
    verifier.close()
    return [verdict.correct for verdict in found if isinstance(verdict, Scored)]


def test_steps_by_hand() -> None:
    assert worked((47, 38, 25), lambda: 0) == ("7+8+5=20\n4+3+2+2=11", 110)
    assert worked((99, 99, 99), lambda: 0) == ("9+9+9=27\n9+9+9+2=29", 297)
    assert worked((1, 2, 3), lambda: 0) == ("1+2+3=6", 6)


def test_a_slip_is_carried_through_as_it_was_written() -> None:
    """7+8+5 is written as 18: 8 stays, 1 is carried, and the rest follows."""
    slips = iter([-2, 0])
    assert worked((47, 38, 25), lambda: next(slips)) == ("7+8+5=18\n4+3+2+1=10", 108)


def test_the_last_number_alone_is_judged() -> None:
    problem = next(p for i in range(99) if len(terms_of((p := load_task(SETTINGS).train_problem(i)).problem_id)) == 3)
    right = problem.answer
    wrong = str(int(right) + 1)
    sums = problem.question.removeprefix("What is ").removesuffix("?")
    texts = [
        f"<think>\n1+1=3\n</think>\n{right}",
        right,
        f"<think>\n{right}\n</think>\n{wrong}",
        f"<think>\n{sums}\n</think>",
        sums,
    ]
    assert verdicts(problem, *texts) == [True, True, False, False, False]


def test_what_the_model_is_shown_is_judged_right() -> None:
    task, world = load_task(SETTINGS), WORLDS["scratchpad"]
    for index in range(50):
        problem = task.train_problem(index)
        assert verdicts(problem, world.solution(problem, lambda: 0)) == [True]


def test_ids_and_split_are_the_same_in_every_process_and_for_every_seed() -> None:
    """Pinned: results are compared over months. A change of the task is another task and wants another name."""
    for seed in (0, 7):
        task = load_task(SETTINGS.model_copy(update={"seed": seed}))
        held = [problem.problem_id for problem in task.held_out(1000)]
        train = sorted(task.train_problem(i).problem_id for i in range(task.num_train or 0))
        assert (len(set(held)), len(set(train))) == (1000, PINNED_TRAIN)
        assert hashlib.sha256("\n".join(held + train).encode()).hexdigest()[:16] == PINNED


def test_no_order_of_a_held_out_sum_is_trained_on() -> None:
    task = load_task(SETTINGS)
    held = {tuple(sorted(terms_of(problem.problem_id))) for problem in task.held_out(1000)}
    trained = {tuple(sorted(terms_of(task.train_problem(i).problem_id))) for i in range(task.num_train or 0)}
    assert not held & trained


def test_a_small_world_is_whole() -> None:
    task = load_task(TaskSettings(kind=KIND, max_operand=2, held_out_share=0.2))
    assert (task.num_train or 0) + len(task.held_out(27 - (task.num_train or 0))) == 27
