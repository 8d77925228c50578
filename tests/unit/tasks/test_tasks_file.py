"""Problems from files: what is read, how it is split, and how wrong files are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import LoadError
from tasks.config import TaskSettings
from tasks.file_task import file_task, split_solution
from tasks.problem_list import ProblemList
from tasks.question_hash import question_hash


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} times two?", "answer": str(2 * i)} for i in range(start, start + n)]


def load(path: Path, **values: Any) -> ProblemList:
    return file_task(TaskSettings(kind="file", path=str(path), **values))


def train_questions(task: ProblemList) -> set[str]:
    assert task.num_train is not None
    return {task.train_problem(i).question for i in range(task.num_train)}


def test_without_a_held_out_file_the_hash_splits_and_loses_nothing(tmp_path: Path) -> None:
    task = load(write_lines(tmp_path / "a.jsonl", numbered(400)))
    held = task.held_out(10**9)
    assert len(held) == task.num_held_out
    assert 20 < len(held) < 70
    assert not train_questions(task) & {p.question for p in held}
    assert len(train_questions(task)) + len(held) == 400


def test_the_split_and_the_names_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = numbered(100)
    a = load(write_lines(tmp_path / "a.jsonl", rows))
    b = load(write_lines(tmp_path / "b.jsonl", rows[::-1]))
    assert a.train_problem(3) == b.train_problem(3)
    assert a.held_out(3) == b.held_out(3)


def test_questions_of_the_held_out_file_leave_the_training_file(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", numbered(20))
    leaked = [{"question": "what is 7  times TWO?", "answer": "14"}, *numbered(5, start=100)]
    task = load(train, held_out_path=str(write_lines(tmp_path / "test.jsonl", leaked)))
    assert task.num_train == 19
    assert "What is 7 times two?" not in train_questions(task)
    assert len(task.held_out(6)) == 6


def test_equal_ids_in_two_files_stay_two_problems(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", [{"id": "0", "question": "1 + 1?", "answer": "2"}])
    test = write_lines(tmp_path / "test.jsonl", [{"id": "0", "question": "1 + 2?", "answer": "3"}])
    task = load(train, held_out_path=str(test))
    assert task.train_problem(0).problem_id != task.held_out(1)[0].problem_id


def test_a_repeated_question_is_one_problem(tmp_path: Path) -> None:
    rows = [*numbered(50), {"question": "WHAT is 3 times two?", "answer": "6"}]
    once, twice = load(write_lines(tmp_path / "a.jsonl", rows[:50])), load(write_lines(tmp_path / "b.jsonl", rows))
    assert once.num_train == twice.num_train


def test_rows_without_an_id_are_named_by_their_question(tmp_path: Path) -> None:
    task = load(write_lines(tmp_path / "a.jsonl", numbered(50)))
    problem = task.train_problem(0)
    assert problem.problem_id == f"question/{question_hash(problem.question)}"


def test_jsonl_and_parquet_give_the_same_task(tmp_path: Path) -> None:
    rows = numbered(50)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines, parquet = load(write_lines(tmp_path / "a.jsonl", rows)), load(tmp_path / "a.parquet")
    assert [lines.train_problem(i) for i in range(20)] == [parquet.train_problem(i) for i in range(20)]


def test_other_keys_and_numeric_answers_are_read(tmp_path: Path) -> None:
    rows = [{"problem": f"{i} plus one?", "solution": i + 1} for i in range(30)]
    task = load(write_lines(tmp_path / "a.jsonl", rows), question_field="problem", answer_field="solution")
    problem = task.train_problem(0)
    assert int(problem.answer) == int(problem.question.split()[0]) + 1


def test_gsm8k_solutions_are_split_into_reasoning_and_answer() -> None:
    solution = "She sold 48/2 = <<48/2=24>>24 clips.\nIn all 72.\n#### 1,072"
    assert split_solution(solution) == ("She sold 48/2 = 24 clips.\nIn all 72.", "1,072")
    assert split_solution(" 72 ") == ("", "72")


def test_worked_examples_show_the_files_own_reasoning_in_the_answer_form(tmp_path: Path) -> None:
    rows = [
        {"question": f"Two times {i}?", "answer": f"It is <<2*{i}={2 * i}>>{2 * i}.\n#### {2 * i}"} for i in range(40)
    ]
    task = load(write_lines(tmp_path / "a.jsonl", rows), answer_form="think_answer", worked_examples=1)
    shown = task.train_problem(0).messages[2]["content"]
    assert shown.startswith("<think>\nIt is ")
    assert "<<" not in shown
    assert shown.endswith("\n</answer>")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "2 + 2?", "answer"', r"a\.jsonl, line 3: not JSON"),
        ("[1, 2]", r"a\.jsonl, line 3: expected an object"),
        (
            '{"qestion": "2 + 2?", "answer": "4"}',
            r"line 3: no key 'question'; did you mean 'qestion'\? Set task\.question_field",
        ),
        ('{"question": "2 + 2?"}', r"line 3: no key 'answer'; keys here: question.* Set task\.answer_field"),
        ('{"question": "", "answer": "4"}', r"line 3: 'question' is \"\"; expected a text"),
        ('{"question": ["2 + 2?"], "answer": "4"}', r"line 3: 'question' is \[\"2 \+ 2\?\"\]"),
        ('{"question": "2 + 2?", "answer": null}', r"line 3: 'answer' is null"),
        ('{"question": "2 + 2?", "answer": true}', r"line 3: 'answer' is true"),
        ('{"question": "2 + 2?", "answer": "3,5"}', r"line 3: the answer '3,5' .*decimal comma.*write a point"),
        ('{"question": "2 + 2?", "answer": "four"}', r"line 3: the answer 'four' is not a number.*answer_form"),
        ('{"question": "2 + 2?", "answer": "so\\n####"}', r"line 3: the answer '' is not a number"),
        ("\udcff", r"line 3: not UTF-8 .*convert the file"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_change(tmp_path: Path, line: str, message: str) -> None:
    good = json.dumps({"question": "1 + 1?", "answer": "2"})
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{good}\n\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(LoadError, match=message):
        load(path)


def test_one_id_for_two_questions_is_refused_with_both_places(tmp_path: Path) -> None:
    rows = [{"id": "x", "question": f"{i} + 1?", "answer": "2"} for i in range(2)]
    with pytest.raises(LoadError, match=r"line 2: id 'x' is taken by another question \(.*line 1\)"):
        load(write_lines(tmp_path / "a.jsonl", rows))


def test_files_that_are_missing_empty_or_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no such file"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(LoadError, match=r"read from \.jsonl, \.json, \.csv, \.parquet files"):
        load(write_lines(tmp_path / "a.txt", numbered(1)))
    with pytest.raises(LoadError, match="no problems in it"):
        load(write_lines(tmp_path / "empty.jsonl", []))
    with pytest.raises(LoadError, match="cannot be read as Parquet"):
        load(write_lines(tmp_path / "fake.parquet", numbered(1)))


def test_real_word_problems_load_disjoint_or_generated_ones_do(tmp_path: Path, word_problems: Path | None) -> None:
    if word_problems is not None:
        train = word_problems / "gsm8k" / "train.jsonl"
        held = word_problems / "gsm8k" / "test.jsonl"
    else:
        train = write_lines(tmp_path / "train.jsonl", numbered(300))
        held = write_lines(tmp_path / "test.jsonl", numbered(200, start=250))
    task = load(train, held_out_path=str(held), answer_form="think_answer")
    held_questions = {question_hash(p.question) for p in task.held_out(200)}
    assert len(held_questions) == 200
    assert not held_questions & {question_hash(question) for question in train_questions(task)}
