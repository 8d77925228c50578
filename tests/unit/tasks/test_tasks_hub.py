"""Problems from the Hub, with a stub in its place: the real `huggingface_hub` and pyarrow, no package `datasets`."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.tasks.hub_stub import hub

READ = """
import json, sys
from contracts.errors import DataError
from tasks.config import TaskSettings
from tasks.file_task import file_task
try:
    task = file_task(TaskSettings.model_validate_json(sys.argv[1]))
    found = sorted(task.train_problem(i).question for i in range(task.num_train)), [p.question for p in task.held_out(1)]
except DataError as error:
    found = str(error)
print(json.dumps([found, "datasets" in sys.modules]))
"""


def parquet(*questions: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"question": questions, "answer": ["#### 1"] * len(questions)}), file)
    return file.getvalue()


def read(address: str, cache: Path, **settings: Any) -> Any:
    """(training questions, held-out ones), or what was refused. In a process of its own, as the address is read once."""
    given = {"kind": "file", "hub_dataset": "someone/problems", "hub_held_out_split": "test"} | settings
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(given)], capture_output=True, text=True, timeout=100, env=environment
    )
    assert done.returncode == 0, done.stderr
    found, has_datasets = json.loads(done.stdout.splitlines()[-1])
    assert not has_datasets
    return found


GSM8K: dict[str, dict[str, bytes]] = {
    "main": {"README.md": b"# problems", "setup.py": b"raise SystemExit('code of a dataset was run')"},
    "refs/convert/parquet": {
        "main/train/0000.parquet": parquet("1 of train?", "2 of train?"),
        "main/train/0001.parquet": parquet("3 of train?"),
        "main/test/0000.parquet": parquet("1 of test?"),
        "socratic/train/0000.parquet": parquet("why?"),
        "socratic/test/0000.parquet": parquet("why not?"),
    },
}
BOTH = [["1 of train?", "2 of train?", "3 of train?"], ["1 of test?"]]


def test_splits_are_read_from_what_the_hub_converted_and_from_the_cache_afterwards(tmp_path: Path) -> None:
    with hub({"someone/problems": GSM8K}) as (address, asked):
        assert read(address, tmp_path, hub_config="main") == BOTH
        assert not [path for path in asked if "socratic" in path or "setup.py" in path], "no more than was asked for"
    assert read(address, tmp_path, hub_config="main") == BOTH, "the hub is gone"


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        ({"data/train-00000-of-00002.parquet": 0, "data/train-00001-of-00002.parquet": 1, "data/test.parquet": 2}, {}),
        ({"main/train-0.parquet": 0, "main/train-1.parquet": 1, "main/test-0.parquet": 2}, {"hub_config": "main"}),
    ],
)
def test_files_named_after_their_split_do_where_nothing_was_converted(
    files: Mapping[str, int], settings: dict[str, str], tmp_path: Path
) -> None:
    contents = [parquet("1 of train?", "2 of train?"), parquet("3 of train?"), parquet("1 of test?")]
    branches = {"main": {name: contents[i] for name, i in files.items()}}
    with hub({"someone/problems": branches}) as (address, _):
        assert read(address, tmp_path, **settings) == BOTH


def test_json_lines_do_too(tmp_path: Path) -> None:
    rows = {name: f'{{"question": "1 of {name}?", "answer": 1}}\n'.encode() for name in ("train", "test")}
    with hub({"someone/problems": {"main": {f"{name}.jsonl": row for name, row in rows.items()}}}) as (address, _):
        assert read(address, tmp_path) == [["1 of train?"], ["1 of test?"]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"hub_dataset": "someone/else"}, "someone/else: not found on the Hub, or not open to this account"),
        ({}, "has several configurations: main, socratic. Choose one: task.hub_config"),
        ({"hub_config": "mane"}, "no files of split 'train' of configuration 'mane'"),
        ({"hub_config": "main", "hub_split": "training"}, "no files of split 'training'"),
        ({"hub_config": "main", "hub_split": "train[:10%]"}, "'train[:10%]' holds %: configurations and splits"),
    ],
)
def test_what_is_not_there_is_told(settings: dict[str, str], told: str, tmp_path: Path) -> None:
    with hub({"someone/problems": GSM8K}) as (address, _):
        found = read(address, tmp_path, **settings)
    assert told in found
    assert "task." in found, "a key to turn"


def test_without_a_network_the_way_out_is_told(tmp_path: Path) -> None:
    found = read("http://127.0.0.1:9", tmp_path, hub_config="main")
    assert "someone/problems: the Hub cannot be reached (ConnectError)" in found
    assert "set task.path to the file" in found
