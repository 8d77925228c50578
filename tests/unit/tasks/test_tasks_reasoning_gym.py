"""reasoning_gym's generators as tasks: stable, disjoint, scored strictly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import ConfigError, DataError
from contracts.ports import Answer
from contracts.verdict import Scored
from tasks.answers import render_answer
from tasks.config import TaskSettings
from tasks.judge import full_judge
from tasks.question_hash import question_hash
from tasks.reasoning_gym_scorer import BLOCK, Generator
from tasks.reasoning_gym_task import ReasoningGymTask

SMALL = TaskSettings(
    kind="reasoning_gym",
    generator="chain_sum",
    generator_params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    held_out_share=0.3,
)


def changed(settings: TaskSettings, **values: object) -> TaskSettings:
    return TaskSettings.model_validate(settings.model_dump() | values)


def test_train_and_held_out_stay_disjoint_in_a_domain_of_two_hundred_questions() -> None:
    task = ReasoningGymTask(SMALL)
    train = {question_hash(task.train_problem(i).question) for i in range(600)}
    held = {question_hash(problem.question) for problem in task.held_out(30)}
    assert len(held) == 30
    assert not train & held


def test_the_seeds_of_training_and_held_out_entries_never_meet() -> None:
    task = ReasoningGymTask(SMALL)
    streams = [json.loads(task.train_problem(i).metadata)["stream"] for i in range(20)]
    held_streams = [json.loads(problem.metadata)["stream"] for problem in task.held_out(20)]
    assert not set(streams) & set(held_streams)


def test_any_index_is_the_same_whatever_was_asked_before_and_in_another_process() -> None:
    indices = [700, 3, 9, 100_000]
    task = ReasoningGymTask(SMALL)
    forwards = [task.train_problem(i).problem_id for i in indices]
    assert [ReasoningGymTask(SMALL).train_problem(i).problem_id for i in reversed(indices)] == forwards[::-1]
    code = (
        "import sys, json; from tasks.config import TaskSettings; "
        "from tasks.reasoning_gym_task import ReasoningGymTask; "
        "t = ReasoningGymTask(TaskSettings.model_validate_json(sys.stdin.read())); "
        f"print(json.dumps([t.train_problem(i).problem_id for i in {indices}]))"
    )
    env = {"PYTHONHASHSEED": "5", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=SMALL.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=env,
    )
    assert json.loads(done.stdout) == forwards


def test_num_train_makes_it_finite_with_a_shuffle_per_epoch() -> None:
    task = ReasoningGymTask(changed(SMALL, num_train=25))
    epochs = [[task.train_problem(epoch * 25 + i).problem_id for i in range(25)] for epoch in (0, 1)]
    assert task.num_train == 25
    assert len(set(epochs[0])) == 25
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_another_seed_draws_other_training_problems_and_the_same_held_out_ones() -> None:
    a = ReasoningGymTask(TaskSettings(kind="reasoning_gym", seed=0))
    b = ReasoningGymTask(TaskSettings(kind="reasoning_gym", seed=1))
    assert [a.train_problem(i) for i in range(5)] != [b.train_problem(i) for i in range(5)]
    assert a.held_out(5) == b.held_out(5)


def test_worked_examples_never_occur_as_problems() -> None:
    task = ReasoningGymTask(changed(SMALL, worked_examples=3))
    chat = task.train_problem(0).messages
    shown = {question_hash(m["content"]) for m in chat[1:-1] if m["role"] == "user"}
    assert len(shown) == 3
    assert not shown & {question_hash(task.train_problem(i).question) for i in range(300)}
    assert not shown & {question_hash(p.question) for p in task.held_out(30)}


def test_a_domain_that_runs_dry_says_what_to_change() -> None:
    with pytest.raises(DataError, match=r"does not give 600 distinct training.*task\.num_train"):
        ReasoningGymTask(SMALL.model_copy(update={"num_train": 600}))


def test_fewer_held_out_problems_than_asked_are_all_there_are() -> None:
    task = ReasoningGymTask(SMALL)
    held = task.held_out(5000)
    assert 0 < len({problem.problem_id for problem in held}) == len(held) < 5000
    assert task.held_out(len(held)) == held == task.held_out(6000)


def test_a_generator_that_does_not_exist_or_a_wrong_parameter_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*chain_sum"):
        ReasoningGymTask(TaskSettings(kind="reasoning_gym", generator="chain_sums"))
    with pytest.raises(ConfigError, match="generator_params"):
        ReasoningGymTask(TaskSettings(kind="reasoning_gym", generator_params={"min_term": 2}))
    with pytest.raises(ConfigError, match="generator_params"):
        ReasoningGymTask(TaskSettings(kind="reasoning_gym", generator_params={"min_terms": 9, "max_terms": 2}))


def test_entries_are_the_same_across_block_borders_in_any_order() -> None:
    generator = Generator("chain_sum", {})
    around = [BLOCK - 1, BLOCK, BLOCK + 1]
    forwards = [generator.entry(1, i)["question"] for i in around]
    assert [Generator("chain_sum", {}).entry(1, i)["question"] for i in reversed(around)] == forwards[::-1]
    assert len(set(forwards)) == 3


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic", "number_sorting", "knights_knaves"])
def test_reference_answers_of_very_different_generators_are_right_and_near_misses_are_not(name: str) -> None:
    settings = TaskSettings(kind="reasoning_gym", generator=name, answer_form="think_answer")
    task, judge = ReasoningGymTask(settings), full_judge(settings)
    for index in range(3):
        problem = task.train_problem(index)
        verdicts = [
            judge.judge(Answer(problem, render_answer(text, "think_answer"), 5, 10, False))
            for text in (problem.answer, "no idea")
        ]
        assert [isinstance(v, Scored) and v.correct for v in verdicts] == [True, False]


def test_only_the_final_answer_is_scored_not_the_first_number_in_the_text() -> None:
    settings = TaskSettings(kind="reasoning_gym", generator="gsm_symbolic")
    problem, judge = ReasoningGymTask(settings).train_problem(0), full_judge(settings)
    right_first = judge.judge(Answer(problem, f"{problem.answer}, or rather {int(problem.answer) + 1}", 5, 10, False))
    right_last = judge.judge(Answer(problem, f"{int(problem.answer) + 1}, or rather {problem.answer}", 5, 10, False))
    assert (right_first and right_first.correct, right_last and right_last.correct) == (False, True)


def test_a_generator_without_reference_answers_has_no_worked_examples() -> None:
    with pytest.raises(DataError, match=r"task\.worked_examples = 0"):
        ReasoningGymTask(TaskSettings(kind="reasoning_gym", generator="rush_hour", worked_examples=1))


def test_a_process_that_dies_is_started_anew_and_gives_the_same_entries() -> None:
    generator = Generator("chain_sum", {})
    first = generator.entry(1, 7)
    os.kill(child_of(generator), signal.SIGKILL)
    assert generator.entry(1, 7) == first
    assert generator.entry(1, 8) == Generator("chain_sum", {}).entry(1, 8)


def test_an_entry_that_ends_its_process_each_time_is_told_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generator = Generator("chain_sum", {})
    os.kill(child_of(generator), signal.SIGKILL)
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\nread line\necho out of luck >&2\nexit 7\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(DataError, match=r"entry 3 of stream 1: .* ended twice over it.* with code 7: out of luck"):
        generator.entry(1, 3)


def test_an_entry_that_takes_too_long_is_told_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator("chain_sum", {})
    os.kill(child_of(generator), signal.SIGSTOP)
    for waits in (generator, generator._process):
        monkeypatch.setattr(waits, "_deadline_s", 0.1)
    with pytest.raises(DataError, match=r"not made within 0\.1 s.*task\.generator_params"):
        generator.entry(1, 3)
    monkeypatch.undo()
    assert generator.entry(1, 3)["question"]


def child_of(generator: Generator) -> int:
    assert generator._process is not None
    return generator._process._process.pid
