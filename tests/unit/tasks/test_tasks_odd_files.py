"""A user's own file once more: Parquet as pandas and trainers write it, chats inside of CSV, and what is no file to read."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.config.run_config import load_config
from cluster.launch.early_checks import refuse_missing_files
from contracts.errors import LoadError
from tests.unit.tasks.test_tasks_data_formats import load, problems

N = 20
QUESTIONS = [f"What is {i} + 1?" for i in range(N)]


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"question": QUESTIONS, "answer": list(range(N))} | columns), path)
    return path


def test_narrow_floats_are_the_numbers_that_were_written(tmp_path: Path) -> None:
    """Read as doubles, 0.1 of 32 bits is 0.10000000149011612, and the answer 0.1 is wrong."""
    for narrow in (pa.float32(), pa.float16()):
        path = parquet(tmp_path / "a.parquet", answer=pa.array([0.1] * (N - 1) + [2.5], narrow))
        assert {problem.answer for problem in problems(load(path))} == {"0.1", "2.5"}


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.duration("ns"), pa.time64("ns")])
def test_a_column_of_nanoseconds_beside_the_problem_refuses_nothing(tmp_path: Path, kind: pa.DataType) -> None:
    path = parquet(tmp_path / "a.parquet", when=pa.array([1_234_567_891] * N, kind))
    assert all("1" in json.loads(problem.metadata)["when"] for problem in problems(load(path)))


def test_what_pyarrow_cannot_show_is_one_sentence(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", when=pa.array([1] * N, pa.timestamp("us", tz="Mars/Phobos")))
    with pytest.raises(LoadError, match=r"a\.parquet: holds values that cannot be read: UnknownTimeZoneError"):
        load(path)


def test_columns_of_one_name_are_refused_as_in_csv(tmp_path: Path) -> None:
    columns = [pa.array(QUESTIONS), pa.array(range(N)), pa.array(range(1, N + 1))]
    pq.write_table(pa.Table.from_arrays(columns, names=["question", "answer", "answer"]), tmp_path / "a.parquet")
    with pytest.raises(LoadError, match=r"columns \['answer'\] stand there more than once"):
        load(tmp_path / "a.parquet")


def test_an_answer_inside_of_an_object_is_named_with_a_dot(tmp_path: Path) -> None:
    """verl's files: reward_model = {style, ground_truth}."""
    rows = [{"prompt": [{"role": "user", "content": q}], "reward_model": {"ground_truth": "7"}} for q in QUESTIONS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(LoadError, match=r"keys here: prompt, reward_model, reward_model\.ground_truth"):
        load(tmp_path / "a.parquet")
    task = load(tmp_path / "a.parquet", answer_field="reward_model.ground_truth")
    assert {problem.answer for problem in problems(task)} == {"7"}
    with pytest.raises(LoadError, match=r"no key 'reward_model\.truth'"):
        load(tmp_path / "a.parquet", answer_field="reward_model.truth")


def written_chats(path: Path, written: Any) -> Path:
    chats = [[{"role": "user", "content": q}] for q in QUESTIONS]
    rows = "".join('"' + written(chat).replace('"', '""') + f'",{i}\n' for i, chat in enumerate(chats))
    path.write_text("prompt,answer\n" + rows)
    return path


def test_a_chat_that_a_csv_holds_as_json_is_a_chat(tmp_path: Path) -> None:
    task = load(written_chats(tmp_path / "a.csv", json.dumps), worked_examples=0)
    assert {problem.question for problem in problems(task)} == set(QUESTIONS)
    assert all(problem.messages[-1]["content"] == problem.question for problem in problems(task))


def test_a_chat_as_python_prints_it_is_not_asked_as_a_text(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"line 2: 'prompt' is a chat written as text, and not as JSON.*json\.dumps"):
        load(written_chats(tmp_path / "a.csv", str))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.jsonl.gz", "packed files are not read; unpack it"),
        ("folder.jsonl", r"folder\.jsonl: a folder or a device, no file"),
        ("pipe.jsonl", r"pipe\.jsonl: a folder or a device, no file"),
        ("circle.jsonl", r"circle\.jsonl: (no such file|cannot be looked at)"),
        ("a" * 300 + ".jsonl", r"cannot be looked at \(File name too long\)"),
    ],
)
def test_what_is_no_file_is_named_for_what_it_is_before_anything_starts(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "circle.jsonl").symlink_to("circle.jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b")
    config = tmp_path / "c.toml"
    config.write_text(
        f'[model]\nname = "scripted"\n[actors]\nengine = "scripted"\n[task]\nkind = "file"\npath = "{name}"\n'
    )
    asked = load_config(config)
    with pytest.raises(LoadError, match=says):
        load(Path(asked.task.path or ""))
    if not name.endswith(".gz") and "folder" not in name and "pipe" not in name:
        with pytest.raises(LoadError, match=says):
            refuse_missing_files(asked)
