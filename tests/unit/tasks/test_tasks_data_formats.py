"""A user's own file: every format that is read, marks and spellings that other programs write, and chats."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import DataError, LoadError
from contracts.problem import Problem
from tasks.config import TaskSettings
from tasks.file_task import file_task
from tasks.problem_files import read_rows
from tasks.problem_list import ProblemList

ROWS = [{"question": f"What is {i} times two?", "answer": str(2 * i), "level": str(i % 3)} for i in range(40)]


def load(path: Path, **values: Any) -> ProblemList:
    return file_task(TaskSettings(kind="file", path=str(path), **values))


def problems(task: ProblemList) -> list[Problem]:
    return [task.train_problem(i) for i in range(task.num_train or 0)] + task.held_out(1000)


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    return "\n".join(delimiter.join(str(cell) for cell in row) for row in [list(rows[0]), *(r.values() for r in rows)])


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


WRITERS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], str]]] = {
    "json lines": (".jsonl", lines),
    "json list": (".json", json.dumps),
    "json list under a key": (".json", lambda rows: json.dumps({"data": rows, "version": 1}, indent=2)),
    "json lines in a .json": (".json", lines),
    "csv": (".csv", as_csv),
    "csv of a European Excel": (".csv", lambda rows: as_csv(rows, ";")),
    "tabs": (".csv", lambda rows: as_csv(rows, "\t")),
    "capital suffix": (".CSV", as_csv),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_text_format_gives_the_same_task(tmp_path: Path, name: str, newline: str, encoding: str) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    suffix, write = WRITERS[name]
    path = tmp_path / f"b{suffix}"
    path.write_text(write(ROWS), encoding=encoding, newline=newline)
    assert problems(load(path)) == problems(load(tmp_path / "a.parquet"))


def test_csv_keeps_values_as_they_are_written_and_quoted_texts_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f'"Say ""{i}"", then\nadd one, please",{i:03d}.50' for i in range(30)]
    path.write_text("question,answer\n" + "\n".join(rows) + "\n\n")
    found = {problem.question: problem.answer for problem in problems(load(path))}
    assert found['Say "7", then\nadd one, please'] == "007.50"
    assert len(found) == 30


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer\n1, 2 and 3?,4\n", r"a\.csv, line 2: 3 values for 2 columns: put texts .* in double quotes"),
        ("question,answer\n1?\n", r"line 2: no key 'answer'"),
        ("question,answer\n1?,\n", r"line 2: 'answer' is null"),
        ("question,answer,answer\n1?,2,3\n", r"line 1: columns \['answer'\] stand there more than once"),
        ('question,answer\n"1?,2\n', r"not CSV"),
        ("question,answer\n", "no problems in it"),
        ("frage,answer\n1?,2\n", r"no key 'question'; keys here: answer, frage"),
    ],
)
def test_a_wrong_csv_is_named_with_what_to_change(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(LoadError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "1?", "answer": 2}', "expected a list of objects"),
        ('{"a": [], "b": []}', "expected a list of objects"),
        ("[1]", r"a\.json, row 1: expected an object, found '1'"),
        ('[{"question": "1?"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no problems in it"),
    ],
)
def test_a_wrong_json_file_is_named_with_what_to_change(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(LoadError, match=message):
        load(path)


def test_utf_16_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(as_csv(ROWS), encoding="utf-16")
    with pytest.raises(LoadError, match="not UTF-8.*Save it as UTF-8"):
        load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("form", ["number", "boxed"])
@pytest.mark.parametrize("field", ["question", "answer"])
def test_what_stands_for_a_missing_number_is_refused_as_null_is(
    tmp_path: Path, value: float, form: str, field: str
) -> None:
    rows: list[dict[str, Any]] = [{"question": float(i), "answer": float(i)} for i in range(5)]
    rows[3][field] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.parquet", "a.jsonl"):
        with pytest.raises(LoadError, match=rf"4: '{field}' is .*; expected a text that is not empty, or a number"):
            load(tmp_path / name, answer_form=form)


@pytest.mark.parametrize(
    ("written", "text"),
    [("1e-5", "0.00001"), ("5e-06", "0.000005"), ("1e22", "1" + 22 * "0"), ("2.50", "2.5"), ("7", "7"), ("3.0", "3.0")],
)
def test_numbers_become_texts_without_exponent(tmp_path: Path, written: str, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"question": "number {i}?", "answer": {written}}}\n' for i in range(30)))
    assert {problem.answer for problem in problems(load(path))} == {text}


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 7 + 12?"}]


@pytest.mark.parametrize("key", ["prompt", "messages", "question"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_chats_are_prompts_as_they_stand(tmp_path: Path, suffix: str, key: str) -> None:
    rows = [{key: [CHAT[0], {"role": "user", "content": f"What is {i} + 1?"}], "answer": str(i + 1)} for i in range(30)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(lines(rows) if suffix == ".jsonl" else json.dumps(rows))
    problem = next(p for p in problems(load(path)) if p.question == "What is 3 + 1?")
    assert problem.messages == (CHAT[0], {"role": "user", "content": "What is 3 + 1?"})
    assert problem.answer == "4"


def test_a_chat_of_several_turns_keeps_them_and_takes_the_settings_system_prompt(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "I have 3."}]},
        {"role": "assistant", "content": "And then?"},
        {"role": "user", "content": "I get 4. How many?"},
    ]
    rows = [{"prompt": [*turns[:2], {"role": "user", "content": f"I get {i}?"}], "solution": i + 3} for i in range(30)]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    problem = next(p for p in problems(load(path)) if p.answer == "7")
    assert [message["role"] for message in problem.messages] == ["system", "user", "assistant", "user"]
    assert problem.messages[1]["content"] == "I have 3."
    assert problem.question == "I have 3.\nAnd then?\nI get 4?"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        (
            [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}],
            "ends with a message of the assist",
        ),
        ([{"role": "human", "content": "1?"}], "expected .*found role 'human'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "expected .*content"),
        ([{"role": "user"}], "expected .*content 'None'"),
        ([], r"'prompt' is \[\]; expected a text"),
    ],
)
def test_a_chat_that_is_no_prompt_is_refused_with_its_place(
    tmp_path: Path, chat: list[dict[str, Any]], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"prompt": chat, "answer": "2"}]))
    with pytest.raises(LoadError, match=rf"line 1: .*{message}"):
        load(path)


def test_other_columns_travel_with_the_problem(tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "question": f"{i}?", "answer": i, "level": i % 3, "tags": ["a"]} for i in range(30)]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    problem = next(p for p in problems(load(path)) if p.answer == "7")
    assert json.loads(problem.metadata) == {"level": 1, "tags": ["a"]}


def test_repeated_questions_are_counted_and_those_that_disagree_named(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[3], ROWS[4] | {"answer": "99"}]
    path = tmp_path / "a.jsonl"
    path.write_text(lines(rows))
    task = load(path)
    [note] = task.notes
    assert note == (
        f"2 rows repeat a question and were left out, the first counts, 1 of them with another answer ({path}, line 42)"
    )
    assert len(problems(task)) == 40


def test_floats_of_32_bits_are_the_decimals_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    level = pa.array([0.1, None, 1.5], pa.float32())
    answers = pa.array([0.1, 2.0, 1e-7], pa.float32())
    pq.write_table(pa.table({"question": ["a?", "b?", "c?"], "answer": answers, "level": level}), path)
    rows = read_rows(path)
    assert [row.text("answer", "s") for row in rows] == ["0.1", "2.0", "0.0000001"]
    assert json.loads(rows[0].others("question", "answer")) == {"level": 0.1}
    assert rows[1].others("question", "answer") == ""
    pq.write_table(pa.table({"question": ["a?"], "answer": pa.array([math.nan], pa.float32())}), path)
    with pytest.raises(DataError, match="row 1: 'answer' is"):
        read_rows(path)[0].text("answer", "s")
