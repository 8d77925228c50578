"""The same file is the same data, whichever commit began the run; other data is told with what differs and the way out."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.config.run_config import RunConfig
from cluster.record.data_identity import DataIdentity, data_identity
from cluster.record.legacy_numbers import tell_reading
from cluster.record.resume import begin_or_go_on, check_same_run
from cluster.record.run_dir import create_run
from contracts.errors import ConfigError
from tasks.load import load_task
from tasks.task_data import look_through
from tests.harness import make_config

LETTERS = CharTokenizer("abc")
NUMBERS = (0.1, 2.7, 1e-05, 3.0)


def on_file(tmp_path: Path, path: Path, **task: Any) -> RunConfig:
    data = {"kind": "file", "path": str(path), "answer_form": "boxed"}
    return make_config(tmp_path, lag=0, updates=300, task=data | task, eval={"problems": 6})


def identity_of(config: RunConfig) -> DataIdentity:
    task = load_task(config.task)
    return data_identity(config.run_path, task, look_through(task, config.eval.problems), config.task)


def begin(config: RunConfig) -> DataIdentity:
    found = identity_of(config)
    begin_or_go_on(config, LETTERS, found.hashes, "model", override=False, data=found)
    (config.run_path / "log" / "000000").write_bytes(b"frame")
    return found


def narrow(path: Path, bits: Any = np.float32) -> Path:
    numbers = np.array([NUMBERS[i % 4] for i in range(40)], bits)
    columns = {"question": [f"q {i}?" for i in range(40)], "answer": numbers, "weight": numbers}
    pq.write_table(pa.table(columns), path)
    return path


def as_read_then(path: Path, copy: Path, *, exponents: bool) -> Path:
    """The rows as the older commits read them, in texts that every commit reads alike."""
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["answer"] = str(row["answer"]) if exponents else format(Decimal(str(row["answer"])), "f")
    copy.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return copy


@pytest.mark.parametrize(
    ("exponents", "hashes"), [(False, ("task_hash", "data_hash")), (True, ("task_hash",))], ids=["4360f17", "be586f9"]
)
@pytest.mark.parametrize("bits", [np.float32, np.float16])
def test_a_run_of_an_older_commit_on_narrow_floats_resumes_on_the_same_file(
    tmp_path: Path, exponents: bool, hashes: tuple[str, ...], bits: Any
) -> None:
    path = narrow(tmp_path / "a.parquet", bits)
    then = identity_of(on_file(tmp_path / "then", as_read_then(path, tmp_path / "a.jsonl", exponents=exponents)))
    config = on_file(tmp_path, path)
    create_run(config, {name: then.hashes[name] for name in hashes})
    now = identity_of(config)
    assert check_same_run(config.run_path, config, now.hashes, override=False, data=now) == []
    told = tell_reading(config.run_path, now.reading)
    assert "0.1 of a 32-bit column is 0.10000000149011612" in told
    assert told in (config.run_path / "events.jsonl").read_text()

    numbers = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"answer": 5.0} for row in numbers]), path)
    other = identity_of(config)
    with pytest.raises(ConfigError, match="the data has changed"):
        check_same_run(config.run_path, config, other.hashes, override=False, data=other)


def test_of_a_run_of_now_nothing_is_read_again_and_nothing_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = on_file(tmp_path, narrow(tmp_path / "a.parquet"))
    begin(config)
    monkeypatch.setattr("cluster.record.data_identity.known_reading", None)
    again = identity_of(config)
    assert check_same_run(config.run_path, config, again.hashes, override=False, data=again) == []
    assert tell_reading(config.run_path, again.reading) == ""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i}?", "answer": i, "id": f"row-{i}"} for i in range(first, first + n)]


def refusal(config: RunConfig) -> str:
    now = identity_of(config)
    with pytest.raises(ConfigError) as caught:
        check_same_run(config.run_path, config, now.hashes, override=True, data=now)
    return str(caught.value)


def test_other_data_is_told_by_its_side_its_number_and_the_problems_that_are_gone(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", rows(30)), write(tmp_path / "t.jsonl", rows(6, 100))
    config = on_file(tmp_path, train, held_out_path=str(test))
    begin(config)
    issued = ["row-3", "row-28"]
    lines = [json.dumps({"lease_id": i, "problem_id": name, "fate": "in_flight"}) for i, name in enumerate(issued)]
    (config.run_path / "ledger" / "events.jsonl").write_text("\n".join(lines) + "\n")

    write(train, rows(27))
    said = refusal(config)
    assert "30 training problems were recorded, 27 are there" in said
    assert "asked in the run: row-28." in said
    assert "held-out" not in said.split("Now it is")[0]
    for way in (f"task.path = {train}", "--set task.path=FILE", "--set run.name=NAME", "No option accepts other data"):
        assert way in said

    write(train, rows(30))
    write(test, [row | {"answer": 7} for row in rows(6, 100)])
    said = refusal(config)
    assert "of 6 held-out problems one or more are not what they were" in said
    assert "training problems" not in said


def test_a_run_of_an_earlier_commit_is_told_which_commit_can_go_on(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", rows(30))
    config = on_file(tmp_path, train)
    create_run(config, {"task_hash": "t" * 64, "git_commit": "be586f9" + "0" * 33})
    said = refusal(config)
    assert "task_hash: recorded tttttttttttt, found " in said
    assert "memr reads it otherwise than commit be586f900000, which began the run and can go on with it" in said


def test_settings_that_changed_with_the_data_are_told_with_it(tmp_path: Path) -> None:
    config = on_file(tmp_path, write(tmp_path / "a.jsonl", [row | {"other": 1} for row in rows(30)]))
    begin(config)
    said = refusal_of_settings(on_file(tmp_path, tmp_path / "a.jsonl", answer_field="other"))
    assert "task.answer_field: was 'answer', is 'other'" in said
    assert "the data has changed" in said
    assert "insist with --override" in said


def refusal_of_settings(config: RunConfig) -> str:
    now = identity_of(config)
    with pytest.raises(ConfigError) as caught:
        check_same_run(config.run_path, config, now.hashes, override=False, data=now)
    return str(caught.value)


def test_another_template_is_told_with_the_models_place(tmp_path: Path) -> None:
    config = on_file(tmp_path, write(tmp_path / "a.jsonl", rows(30)))
    found = begin(config)
    path = config.run_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"template_hash": "t"}))
    other = {**found.hashes, "template_hash": "u"}
    with pytest.raises(
        ConfigError, match=r"template has changed .*recorded t, found u(?s:.)*Restore the model's files .*model\)"
    ):
        check_same_run(config.run_path, config, other, override=True, data=found)


def test_data_without_facts_of_an_earlier_commit_is_told_without_numbers(tmp_path: Path) -> None:
    config = on_file(tmp_path, write(tmp_path / "a.jsonl", rows(30)))
    create_run(config, {"data_hash": "8:" + "d" * 64})
    now = identity_of(config)
    with pytest.raises(ConfigError, match=r"data_hash: recorded 8:dddddddddddd, found \w+\)\.\n"):
        check_same_run(config.run_path, config, now.hashes, override=False, data=replace(now, train_ids=None))
