"""What check-task and train say of the same data, and when data is the same data."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import LoadError
from contracts.ports import Task
from contracts.problem import Problem
from tasks.config import TaskSettings
from tasks.load import load_task
from tasks.task_data import data_hash, look_through
from tests.fakes import CountingTask


def rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i} times two?", "answer": 2 * i, "level": i % 3} for i in range(start, start + n)]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def load(path: Path, **values: Any) -> Task:
    return load_task(TaskSettings(kind="file", path=str(path), **values))


def whole_hash(task: Task, held_out: int = 10) -> str:
    return data_hash(task, look_through(task, held_out))


def test_fewer_held_out_problems_than_asked_are_a_note(tmp_path: Path) -> None:
    held_out_path = str(write(tmp_path / "test.jsonl", rows(8, start=100)))
    data = look_through(load(write(tmp_path / "a.jsonl", rows(30)), held_out_path=held_out_path), 100)
    assert data.counts == "30 training problems, 8 held-out ones"
    assert data.notes == (
        "8 held-out problems are there, fewer than eval.problems = 100: all are used. For more raise task.held_out_share "
        "or give task.held_out_path more rows",
    )
    assert data.faults == ()


def test_no_held_out_problem_is_a_note_too(tmp_path: Path) -> None:
    [note] = look_through(load(write(tmp_path / "a.jsonl", rows(3)), held_out_share=0.001), 10).notes
    assert note.startswith("there are no held-out problems, so accuracy is not measured")


def test_repeats_and_leaks_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*rows(30), *rows(2)])
    held_out_path = str(write(tmp_path / "test.jsonl", rows(5, start=28)))
    data = look_through(load(path, held_out_path=held_out_path), 5)
    assert data.counts == "28 training problems, 5 held-out ones"
    assert data.notes == (
        "2 rows repeat a question and were left out, the first counts",
        "2 training problems are held-out ones too and were left out",
    )


class Sloppy(CountingTask):
    """Id 0 for every problem; the third held-out one is a training problem."""

    def train_problem(self, index: int) -> Problem:
        return Problem(str(index // 2), f"{index}?", "0", ({"role": "user", "content": f"{index}?"},))

    @property
    def num_train(self) -> int | None:
        return 4

    def held_out(self, n: int) -> list[Problem]:
        return [self.train_problem(0), *super().held_out(n - 1)]


def test_ids_that_name_two_problems_and_leaks_of_a_users_task_are_faults() -> None:
    faults = look_through(Sloppy(), 3).faults
    assert faults == (
        "problem 0 is both a training and a held-out problem",
        "problem_id 1 names two problems; ids must be unique: memory goes by them",
    )


CHANGES: dict[str, Any] = {
    "last training row": lambda train, test: train.__setitem__(-1, train[-1] | {"answer": 7}),
    "a column for rewards": lambda train, test: train[299].update(level=9),
    "last held-out row": lambda train, test: test.__setitem__(-1, test[-1] | {"answer": 7}),
    "one row more": lambda train, test: train.extend(rows(1, start=900)),
    "one held-out row more": lambda train, test: test.extend(rows(1, start=900)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_hash_covers_every_row_of_both_files(tmp_path: Path, name: str) -> None:
    train, test = rows(400), rows(40, start=500)
    before = load(write(tmp_path / "a.jsonl", train), held_out_path=str(write(tmp_path / "t.jsonl", test)))
    CHANGES[name](train, test)
    after = load(write(tmp_path / "b.jsonl", train), held_out_path=str(write(tmp_path / "u.jsonl", test)))
    assert whole_hash(before) != whole_hash(after)


def test_the_hash_does_not_know_where_the_data_lies(tmp_path: Path) -> None:
    first = load(write(tmp_path / "here" / "a.jsonl", rows(300)))
    second = load(write(tmp_path / "there" / "b.jsonl", rows(300)))
    as_json = tmp_path / "c.json"
    as_json.write_text(json.dumps(rows(300)))
    assert whole_hash(first) == whole_hash(second) == whole_hash(load(as_json))


def test_the_hash_covers_worked_examples(tmp_path: Path) -> None:
    content = rows(300)
    before = load(write(tmp_path / "a.jsonl", content), worked_examples=1)
    shown = before.train_problem(0).messages[1]["content"]
    changed = [row | {"answer": 1} if row["question"] == shown else row for row in content]
    assert changed != content
    assert whole_hash(before) != whole_hash(load(write(tmp_path / "b.jsonl", changed), worked_examples=1))


class Counting(CountingTask):
    """Counts what is made."""

    def __init__(self, changed: int = -1) -> None:
        self.made, self.changed = 0, changed

    def train_problem(self, index: int) -> Problem:
        self.made += 1
        return super().train_problem(index)

    def held_out(self, n: int) -> list[Problem]:
        self.made += n
        found = super().held_out(n)
        return [replace(p, answer="7") if i == self.changed else p for i, p in enumerate(found)]


def test_the_hash_of_a_task_without_end_makes_no_problem_again() -> None:
    task = Counting()
    data = look_through(task, 8)
    made = task.made
    assert data_hash(task, data).startswith("8:")
    assert task.made == made


def test_the_hash_covers_each_held_out_problem_that_is_measured_by() -> None:
    assert whole_hash(Counting(), 100) != whole_hash(Counting(changed=99), 100)
    assert whole_hash(Counting(), 100) == whole_hash(Counting(changed=100), 100)


def test_a_run_is_compared_by_the_number_that_its_own_hash_names() -> None:
    task, changed = Counting(), Counting(changed=50)
    first, few = whole_hash(task, 100), look_through(task, 8)
    assert data_hash(task, few, like=first) == first
    assert data_hash(changed, look_through(changed, 8), like=first) != first
    old = "a hash of an earlier commit, over 64 held-out problems"
    of_64 = data_hash(task, look_through(task, 64)).removeprefix("64:")
    assert data_hash(task, few, like=old) == of_64 == data_hash(task, look_through(task, 100), like=old)


def test_a_held_out_file_with_the_training_rows_is_what_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(3))
    with pytest.raises(
        LoadError, match=r"Every question that .*a\.jsonl has too leaves.*--unset task\.held_out_path"
    ) as caught:
        load(path, held_out_path=str(path))
    assert "task.held_out_share" not in str(caught.value)


def test_a_share_that_leaves_nothing_to_train_on_is_what_is_to_be_lowered(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no training problems are left.*lower task\.held_out_share"):
        load(write(tmp_path / "a.jsonl", rows(3)), held_out_share=0.999)
