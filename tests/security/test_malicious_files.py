"""Files that somebody made to do harm: every reader refuses them with its own error, says where, and executes nothing."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cluster.commands.export import export_run
from cluster.config.run_config import load_config
from cluster.record.adapter_registry import AdapterRegistry, read_adapter, write_adapter
from cluster.record.checkpoint import CheckpointState, _write, read_checkpoint, verify
from cluster.record.history import History, Kind, RecoveredState, read_recovered
from cluster.record.ledger import LeaseStatus, Ledger, LedgerEvent
from cluster.record.run_dir import owner_alive
from cluster.record.run_log import BEGINNING, Position, RunLog, read_log
from cluster.record.run_view import read_run
from contracts.adapter import Adapter, AdapterManifest, LoraShape
from contracts.errors import ConfigError, DataError, LedgerError, MemoryServiceError
from learner import checkpoint as learner_checkpoint
from learner.config import LearnerSettings
from learner.scripted_learner import ScriptedLearner
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from memory_service.snapshot import read_snapshot
from storage.arrow import (
    SCORED_GROUP_SCHEMA,
    groups_from_bytes,
    groups_from_table,
    groups_to_table,
    read_groups,
    write_groups,
)
from storage.bounded_tables import MAX_TABLE_BYTES, MAX_TABLE_ROWS, read_parquet
from tasks.config import TaskSettings
from tasks.file_task import file_task
from tasks.problem_files import read_rows
from tasks.text_rows import MAX_LINE_BYTES
from tests.fakes import make_adapter, make_group, make_scored
from tests.unit.learner.builders import tiny_learner

DEEP = 100_000


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def trap(tmp_path: Path) -> "TrapFile":
    return TrapFile(tmp_path / "marker")


class TrapFile:
    """pickled: bytes that make `marker` when they are unpickled, which the fixture's own check proves."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker
        self.pickled = pickle.dumps(Trap(marker))
        pickle.loads(self.pickled)  # noqa: S301
        assert marker.exists(), "the trap works"
        marker.rmdir()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def absurd_header(size: int = 2**62) -> bytes:
    """safetensors begins with the length of its header."""
    return struct.pack("<Q", size) + b"{}"


def absurd_tensor() -> bytes:
    """A header that names 8 exabytes, over 8 bytes of data."""
    header = json.dumps({"cache": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 8


# Parquet that unpacks to more than memr reads


@pytest.fixture(scope="session")
def zip_bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just more than MAX_TABLE_BYTES of one letter, in the columns of a dataset, a group table and an episode table."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.parquet"
    size = 2**26
    text = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, size], np.int32)), pa.py_buffer(b"a" * size))
    table = pa.table({"question": text, "answer": ["1"]})
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False, write_statistics=False) as file:
        for _ in range(MAX_TABLE_BYTES // size + 1):
            file.write_table(table)
    assert path.stat().st_size < 2**20
    return path


def repeated_text(path: Path, num_rows: int = 200_000, length: int = 100_000) -> Path:
    """20 GB from a dictionary of one text: the footer tells of 100 kB."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), pa.array(["a" * length]))
    pq.write_table(pa.table({"question": values, "answer": ["1"] * num_rows}), path, store_schema=False)
    assert path.stat().st_size < 2**20
    return path


@pytest.mark.parametrize("reader", [read_parquet, read_rows, read_groups])
def test_a_zip_bomb_is_refused_by_what_its_footer_says(zip_bomb: Path, reader: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match=rf"bomb\.parquet unpacks to 1\d+ bytes.*at most {MAX_TABLE_BYTES} bytes"):
        reader(zip_bomb)


def test_a_bomb_made_of_one_repeated_text_is_stopped_while_it_unpacks(tmp_path: Path) -> None:
    path = repeated_text(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet unpacks to more than its footer says: stopped at"):
        read_parquet(path, max_bytes=2**22)


def test_more_rows_than_memr_reads_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"question": pa.nulls(MAX_TABLE_ROWS + 1, pa.int8())}), path)
    with pytest.raises(DataError, match=rf"at most .* {MAX_TABLE_ROWS} rows"):
        read_rows(path)


# groups


def group_rows(**changes: Any) -> pa.Table:
    rows = groups_to_table([make_scored(make_group(0))]).to_pylist()
    return pa.Table.from_pylist([row | changes for row in rows], schema=SCORED_GROUP_SCHEMA)


def stream(table: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


BAD_GROUPS: dict[str, dict[str, Any]] = {
    "no lease": {"lease_id": None},
    "no tokens": {"tokens": None},
    "a null among the tokens": {"tokens": [1, None, 3]},
    "fewer log-probs than tokens": {"logprobs": [-0.5]},
    "an unknown finish": {"finish_reason": "exploded"},
    "an unknown purpose": {"purpose": "harm"},
    "neither scored nor invalid": {"task_reward": None, "reward_parts": None},
    "parts that are no numbers": {"reward_parts": '{"a": "b"}'},
    "parts that are nested": {"reward_parts": "[" * DEEP},
    "neighbours of other fields": {"neighbours": '[{"path": "/etc/passwd"}]'},
    "neighbours that are nested": {"neighbours": "[" * DEEP + "]" * DEEP},
    "a score that is no number": {"bonus": float("nan")},
}


@pytest.mark.parametrize("name", BAD_GROUPS)
def test_groups_of_other_values_are_refused_in_files_and_in_streams(tmp_path: Path, name: str) -> None:
    table = group_rows(**BAD_GROUPS[name])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_groups(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="rollout groups"):
        groups_from_bytes(stream(table))


def test_groups_of_other_columns_or_types_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(group_rows().drop_columns(["tokens"]), path)
    with pytest.raises(DataError, match=r"a\.parquet.*missing or different columns: tokens"):
        read_groups(path)
    place = SCORED_GROUP_SCHEMA.get_field_index("lease_id")
    pq.write_table(group_rows().set_column(place, "lease_id", pa.array(["0", "0"])), path)
    with pytest.raises(DataError, match="different columns: lease_id"):
        read_groups(path)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_stream_is_refused_before_it_unpacks(compression: str) -> None:
    """200 MB of one letter in some kilobytes."""
    table = group_rows(text="a" * 10**8)
    payload = stream(table, compression)
    assert len(payload) < 10**6
    del table
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match="compressed"):
        groups_from_bytes(payload)
    assert pa.default_memory_pool().max_memory() == before


def test_offsets_beyond_the_buffers_are_refused_and_not_followed() -> None:
    """Arrow trusts offsets: read as they stand, these would leave the process's memory."""
    payload = bytearray(stream(group_rows(question="?" * 5000)))
    offsets = struct.pack("<iii", 0, 5000, 10000)
    place = payload.index(offsets)
    payload[place : place + 12] = struct.pack("<iii", 0, 2**30, 2**31 - 1)
    with pytest.raises(DataError, match="not a stream of rollout groups"):
        groups_from_bytes(bytes(payload))


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    table = group_rows().set_column(SCORED_GROUP_SCHEMA.get_field_index("question"), "question", bad)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_groups(tmp_path / "a.parquet")
    with pytest.raises(DataError):
        groups_from_bytes(stream(table))


def test_a_table_in_memory_is_checked_alike() -> None:
    with pytest.raises(DataError, match="not a table of rollout groups"):
        groups_from_table(group_rows(outcomes=["nothing"]))


# learner checkpoints


def plant_learner(directory: Path, tensors: bytes, **changes: Any) -> None:
    """A learner's checkpoint of other tensors whose manifest agrees with them."""
    (directory / learner_checkpoint.TENSORS).write_bytes(tensors)
    digest = hashlib.sha256(tensors).hexdigest()
    edit_json(directory / learner_checkpoint.MANIFEST, **{"tensors_hash": digest} | changes)


@pytest.fixture
def learner_folder(tmp_path: Path) -> Path:
    tiny_learner().save(tmp_path / "learner")
    return tmp_path / "learner"


def test_a_pickled_learner_checkpoint_is_refused_and_never_unpickled(learner_folder: Path, trap: TrapFile) -> None:
    plant_learner(learner_folder, trap.pickled)
    with pytest.raises(DataError, match=r"cannot read the learner checkpoint .*learner"):
        tiny_learner().restore(learner_folder)
    torch.save({"weight": Trap(trap.marker)}, learner_folder / "zip")
    plant_learner(learner_folder, (learner_folder / "zip").read_bytes())
    with pytest.raises(DataError):
        tiny_learner().restore(learner_folder)
    assert not trap.marker.exists()


@pytest.mark.parametrize("content", [absurd_header(), absurd_header(90), absurd_tensor(), b""])
def test_learner_tensors_of_absurd_size_are_refused(learner_folder: Path, content: bytes) -> None:
    plant_learner(learner_folder, content)
    with pytest.raises(DataError, match="cannot read the learner checkpoint"):
        tiny_learner().restore(learner_folder)


def test_a_learner_checkpoint_larger_than_any_is_refused_unread(learner_folder: Path) -> None:
    with (learner_folder / learner_checkpoint.TENSORS).open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match=rf"has {2**40} bytes, at most"):
        tiny_learner().restore(learner_folder)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("rng/cpu", torch.zeros(3)),
        ("rng/cpu", None),
        ("exp_avg", torch.zeros(1)),
        ("step", torch.zeros(2)),
        ("weight", torch.zeros(1, dtype=torch.int8)),
        ("weight", None),
        ("weight", float("nan")),
    ],
)
def test_learner_tensors_that_do_not_fit_are_refused_and_change_nothing(
    learner_folder: Path, name: str, tensor: torch.Tensor | float | None
) -> None:
    from safetensors.torch import save

    _, tensors = learner_checkpoint.read(learner_folder)
    key = name if name in tensors else f"{name}/{next(n for n in tensors if n.startswith('weight/'))[len('weight/') :]}"
    old = tensors.pop(key, torch.zeros(1))
    if tensor is not None:
        tensors[key] = tensor if isinstance(tensor, torch.Tensor) else torch.full_like(old, tensor)
    plant_learner(learner_folder, save(tensors))
    victim = tiny_learner()
    before = victim.publish().weights
    with pytest.raises(DataError, match="does not fit this learner"):
        victim.restore(learner_folder)
    if not name.startswith("rng"):
        assert victim.publish().weights == before


@pytest.mark.parametrize(
    "changes",
    [
        {"policy_version": "3"},
        {"policy_version": -1},
        {"policy_version": 10**30},
        {"target_modules": "q_proj"},
        {"tensors_hash": None},
        {"lora_alpha": float("nan")},
    ],
)
def test_a_learner_manifest_of_other_types_is_refused_by_key(learner_folder: Path, changes: dict[str, Any]) -> None:
    edit_json(learner_folder / learner_checkpoint.MANIFEST, **changes)
    with pytest.raises(DataError, match=next(iter(changes))):
        tiny_learner().restore(learner_folder)


def test_a_scripted_learner_refuses_the_checkpoint_of_an_older_commit_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "scripted.json").write_text('{"policy_version": 4}')
    with pytest.raises(ConfigError, match=r"commit 09489b9 or before, .* resume the run with that commit"):
        ScriptedLearner(LearnerSettings()).restore(tmp_path)


# whole checkpoints


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints" / "step-000004"
    (folder / "learner").mkdir(parents=True)
    (folder / "learner" / "scripted.json").write_text('{"policy_version": 4}')
    ledger = Ledger(lambda _event: None)
    ledger.buffered(ledger.issue("p"))
    _write(folder, CheckpointState(4, Position(0, 10), ledger.snapshot(), (make_scored(make_group(0)),), ()))
    verify(folder)
    return folder


def agree(folder: Path) -> None:
    """Make checkpoint.json name what is there."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "checkpoint.json"]
    edit_json(folder / "checkpoint.json", sha256={str(p.relative_to(folder)): sha256(p) for p in files})


def passed_over(folder: Path) -> str:
    past, position = read_checkpoint(folder.parent.parent)
    assert (past.checkpoint, position) == (None, BEGINNING)
    assert len(past.notes) == 1
    return past.notes[0]


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"x": [1]}),
        pa.table({"lease_id": ["0"], "problem_id": ["p"], "fate": ["trained"], "reason": [""], "policy_version": [1]}),
        pa.table({"lease_id": [0], "problem_id": ["p"], "fate": ["eaten"], "reason": [""], "policy_version": [1]}),
        pa.table({"lease_id": [7], "problem_id": ["p"], "fate": ["trained"], "reason": [""], "policy_version": [1]}),
        pa.table(
            {"lease_id": [0], "problem_id": ["p"], "fate": ["trained"], "reason": [""], "policy_version": [2**40]}
        ),
        pa.table(
            {
                "lease_id": pa.array([None], pa.int64()),
                "problem_id": ["p"],
                "fate": ["trained"],
                "reason": [""],
                "policy_version": [1],
            }
        ),
    ],
    ids=["columns", "types", "fate", "lease", "version", "null"],
)
def test_a_ledger_of_other_columns_types_or_fates_is_refused_though_hashes_agree(
    checkpoint_folder: Path, table: pa.Table
) -> None:
    pq.write_table(table, checkpoint_folder / "ledger.parquet")
    agree(checkpoint_folder)
    assert "ledger.parquet" in passed_over(checkpoint_folder)


@pytest.mark.parametrize("file", ["ledger.parquet", "buffered.parquet", "sampled.parquet"])
def test_a_zip_bomb_in_a_checkpoint_is_refused_though_hashes_agree(
    checkpoint_folder: Path, zip_bomb: Path, file: str
) -> None:
    shutil.copy(zip_bomb, checkpoint_folder / file)
    agree(checkpoint_folder)
    assert "unpacks to" in passed_over(checkpoint_folder)


def test_pickled_tables_in_a_checkpoint_are_refused_though_hashes_agree(
    checkpoint_folder: Path, trap: TrapFile
) -> None:
    for file in ("ledger.parquet", "buffered.parquet"):
        (checkpoint_folder / file).write_bytes(trap.pickled)
        agree(checkpoint_folder)
        assert "cannot be read as Parquet" in passed_over(checkpoint_folder)
    assert not trap.marker.exists()


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd", "learner/../../x", "a\0b", "", "~/x"])
def test_names_in_a_checkpoint_lead_nowhere_else(checkpoint_folder: Path, name: str) -> None:
    hashes = json.loads((checkpoint_folder / "checkpoint.json").read_text())["sha256"]
    edit_json(checkpoint_folder / "checkpoint.json", sha256=hashes | {name: "0"})
    with pytest.raises(DataError, match="outside the checkpoint"):
        verify(checkpoint_folder)


def test_a_link_in_a_checkpoint_is_refused_though_hashes_agree(checkpoint_folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.parquet"
    shutil.move(checkpoint_folder / "buffered.parquet", outside)
    (checkpoint_folder / "buffered.parquet").symlink_to(outside)
    with pytest.raises(DataError, match=r"buffered\.parquet is a link"):
        verify(checkpoint_folder)


def test_a_file_that_the_manifest_does_not_name_is_refused(checkpoint_folder: Path) -> None:
    edit_json(checkpoint_folder / "checkpoint.json", sha256={})
    with pytest.raises(DataError, match=r"is not named in checkpoint\.json"):
        verify(checkpoint_folder)


def test_a_pipe_in_a_checkpoint_is_refused_and_not_waited_for(checkpoint_folder: Path) -> None:
    os.mkfifo(checkpoint_folder / "learner" / "pipe")
    with pytest.raises(DataError, match="pipe is a link or no regular file"):
        verify(checkpoint_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": float("inf")},
        {"step": None},
        {"log": [0]},
        {"log": [0, -5]},
        {"log": "00"},
        {"sha256": ["ledger.parquet"]},
        {"sha256": {"ledger.parquet": 5}},
    ],
)
def test_a_checkpoint_manifest_of_other_types_is_refused_by_key(
    checkpoint_folder: Path, changes: dict[str, Any]
) -> None:
    edit_json(checkpoint_folder / "checkpoint.json", **changes)
    assert next(iter(changes)) in passed_over(checkpoint_folder)


# adapters


def test_a_pickle_named_safetensors_is_no_adapter_though_its_hash_agrees(tmp_path: Path, trap: TrapFile) -> None:
    digest = hashlib.sha256(trap.pickled).hexdigest()
    shape = LoraShape(4, 8.0, ("q_proj",))
    manifest = AdapterManifest(1, digest, len(trap.pickled), "base", shape, "float32", "template")
    folder = write_adapter(Adapter(manifest, trap.pickled), tmp_path)
    with pytest.raises(DataError, match="is not an adapter that memr wrote"):
        read_adapter(folder)
    registry = AdapterRegistry(tmp_path, lambda adapter: adapter, keep=2)
    with pytest.raises(DataError):
        registry.reload(1)
    assert not trap.marker.exists()


@pytest.mark.parametrize("content", [absurd_header(), absurd_header(90), absurd_tensor()])
def test_an_adapter_of_absurd_sizes_is_refused_though_its_hash_agrees(tmp_path: Path, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    manifest = AdapterManifest(1, digest, len(content), "base", LoraShape(4, 8.0, ()), "float32", "template")
    with pytest.raises(DataError, match="is not an adapter that memr wrote"):
        read_adapter(write_adapter(Adapter(manifest, content), tmp_path))


def test_an_adapter_larger_than_any_is_refused_unread(tmp_path: Path) -> None:
    folder = write_adapter(make_adapter(1), tmp_path)
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match=rf"{2**40} bytes, at most"):
        read_adapter(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights_hash": "../../../../tmp/x"},
        {"policy_version": 2},
        {"policy_version": "../../x"},
        {"lora": {"r": 0, "alpha": 1.0, "target_modules": []}},
        {"lora": {"r": 4, "alpha": float("inf"), "target_modules": []}},
        {"lora": {"r": 4, "alpha": 1.0, "target_modules": "q_proj"}},
        {"lora": []},
        {"base_model": None},
    ],
)
def test_an_adapter_with_path_tricks_or_absurd_values_in_its_manifest_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = write_adapter(make_adapter(1), tmp_path)
    edit_json(folder / "manifest.json", **changes)
    with pytest.raises(DataError, match="is not an adapter that memr wrote"):
        read_adapter(folder)


def test_a_linked_adapter_folder_is_refused(tmp_path: Path) -> None:
    folder = write_adapter(make_adapter(1), tmp_path / "elsewhere")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / folder.name).symlink_to(folder)
    with pytest.raises(DataError, match="is not an adapter"):
        AdapterRegistry(tmp_path / "adapters", lambda adapter: adapter, keep=2).reload(1)


def test_nothing_of_an_adapters_own_peft_configuration_or_neighbours_is_exported(
    tmp_path: Path, trap: TrapFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    (run / "config.toml").write_text("")
    edit_json(run / "manifest.json", model_path="base")
    folder = write_adapter(make_adapter(1), run / "adapters")
    edit_json(folder / "adapter_config.json", base_model_name_or_path="../../etc", auto_mapping={"x": "os.system"})
    (folder / "adapter_model.bin").write_bytes(trap.pickled)
    (folder / "secret").symlink_to("/etc/passwd")
    monkeypatch.setattr("cluster.commands.export._write_tokenizer", lambda model_path, out: None)
    export_run(run, tmp_path / "out", merge=False)
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert "auto_mapping" not in config


# durable logs


def log_of(directory: Path, *frames: tuple[int, bytes]) -> Path:
    log = RunLog(directory)
    for kind, payload in frames:
        log.append(kind, payload)
    log.close()
    return directory


BAD_FRAMES: dict[str, tuple[int, bytes]] = {
    "an unknown kind": (99, b"{}"),
    "kind 0": (0, b"{}"),
    "garbage for JSON": (Kind.ISSUED, b"\x80\x04garbage"),
    "garbage for Arrow": (Kind.SAMPLED, b"\xff\xff\xff\xff\x00\x00\x00\x80" * 4),
    "nothing for Arrow": (Kind.SAMPLED, b""),
    "a list for an object": (Kind.ISSUED, b"[1]"),
    "a number for a list": (Kind.SCORED, b"5"),
    "nesting": (Kind.TRAINED, b"[" * DEEP),
    "a lease that is text": (Kind.ISSUED, b'{"lease": "0", "problem": "p"}'),
    "a lease that is endless": (Kind.ISSUED, b'{"lease": 1e999, "problem": "p"}'),
    "a lease of many digits": (Kind.ISSUED, b'{"lease": ' + b"9" * 5000 + b', "problem": "p"}'),
    "a lease below 0": (Kind.ISSUED, b'{"lease": -1, "problem": "p"}'),
    "a problem that is a list": (Kind.ISSUED, b'{"lease": 0, "problem": []}'),
    "an unknown fate": (Kind.ENDED, b'{"lease": 0, "problem": "p", "fate": "eaten", "reason": ""}'),
    "late, never sampled": (Kind.LATE, b'{"lease": 7}'),
    "trained, never sampled": (Kind.TRAINED, b'{"step": 1, "leases": [7], "weights_hash": ""}'),
    "a hash that is null": (Kind.TRAINED, b'{"step": 1, "leases": [], "weights_hash": null}'),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_with_a_right_checksum_and_a_wrong_payload_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    log_of(tmp_path, (Kind.ISSUED, b'{"lease": 0, "problem": "p"}'), BAD_FRAMES[name])
    with pytest.raises(DataError, match=r"segment 0, before byte \d+: .*"):
        read_recovered(tmp_path, RecoveredState(), BEGINNING, memory_on=True)


@pytest.mark.parametrize("scores", ["[]", "[NaN, 0]", "[1e999, 0]", '["a", 0]', "null"])
def test_scores_that_are_no_scores_are_refused(tmp_path: Path, scores: str) -> None:
    log = RunLog(tmp_path)
    History(log).sampled([make_group(0)])
    fields = f'"exploit": {scores}, "explore": [0, 0], "bonus": [0, 0], "stage": "before_normalisation"'
    log.append(Kind.SCORED, f'[{{"lease": 0, {fields}, "memory_version": 0}}]'.encode())
    log.close()
    with pytest.raises(DataError, match="segment 0, before byte"):
        read_recovered(tmp_path, RecoveredState(), BEGINNING, memory_on=True)


@pytest.mark.parametrize("length", [2**32 - 1, 2**30 + 1, 2**30, 100])
def test_a_frame_of_absurd_length_is_a_torn_tail(tmp_path: Path, length: int) -> None:
    header = struct.pack("<IIB", length, zlib.crc32(b"{}", 1), 1)
    (tmp_path / "000000.log").write_bytes(header + b"{}")
    assert list(read_log(tmp_path)) == []
    (tmp_path / "000001.log").write_bytes(b"")
    with pytest.raises(DataError, match="damaged at byte 0"):
        list(read_log(tmp_path))


def test_files_beside_the_log_are_no_segments(tmp_path: Path) -> None:
    log_of(tmp_path, (Kind.ISSUED, b'{"lease": 0, "problem": "p"}'))
    for name in ("²", "٣", "1", "0000002", "x"):
        (tmp_path / f"{name}.log").write_bytes(b"")
    (tmp_path / "000001.log").mkdir()
    os.mkfifo(tmp_path / "000002.log")
    assert len(read_recovered(tmp_path, RecoveredState(), BEGINNING, memory_on=True).events) == 1


def test_a_log_that_issues_another_runs_leases_is_refused_by_the_ledger() -> None:
    ledger = Ledger(lambda event: None)
    with pytest.raises(LedgerError, match="issues lease 5 after 0 leases"):
        ledger.restore(LedgerEvent(5, "p", LeaseStatus.IN_FLIGHT))


# memory snapshots


def memory(dimension: int = 16) -> EpisodicMemory:
    return EpisodicMemory(MemorySettings(), HashEncoder(dimension))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    source = memory()
    source.score([make_group(i) for i in range(4)])
    folder = tmp_path / source.save(tmp_path)
    read_snapshot(folder)
    return folder


def refused(folder: Path) -> str:
    """Hashes agree; the memory that refuses stays as it was."""
    files = ("vectors.safetensors", "episodes.parquet", "cache.parquet")
    edit_json(folder / "manifest.json", sha256={name: sha256(folder / name) for name in files})
    victim = memory()
    victim.score([make_group(9)])
    before = (victim.contents(), victim.report().memory_version)
    with pytest.raises(MemoryServiceError, match=folder.name) as error:
        victim.restore(folder)
    assert (victim.contents(), victim.report().memory_version) == before
    return str(error.value)


@pytest.mark.parametrize("content", [absurd_header(), absurd_header(90), absurd_tensor(), b""])
def test_vectors_of_absurd_size_are_refused_though_hashes_agree(snapshot: Path, content: bytes) -> None:
    (snapshot / "vectors.safetensors").write_bytes(content)
    refused(snapshot)


def test_vectors_larger_than_any_are_refused_unread(snapshot: Path) -> None:
    with (snapshot / "vectors.safetensors").open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(MemoryServiceError, match="larger than"):
        read_snapshot(snapshot)


def test_pickled_vectors_are_refused_and_never_unpickled(snapshot: Path, trap: TrapFile) -> None:
    (snapshot / "vectors.safetensors").write_bytes(trap.pickled)
    refused(snapshot)
    assert not trap.marker.exists()


def of_dimension_8(tensors: dict[str, Any]) -> dict[str, Any]:
    cut = {name: value[:, :8].copy() for name, value in tensors.items() if value.ndim == 2}
    return tensors | {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in cut.items()}


CHANGED_TENSORS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "fewer questions": lambda t: t | {"success.queries": t["success.queries"][:-1]},
    "more questions": lambda t: t | {"success.queries": np.concatenate([t["success.queries"]] * 2)},
    "fewer responses": lambda t: t | {"failure.responses": t["failure.responses"][:-1]},
    "NaN": lambda t: t | {"failure.responses": t["failure.responses"] * np.float32("nan")},
    "signalling NaN": lambda t: (
        t | {"success.queries": np.full_like(t["success.queries"].view(np.uint32), 0x7F800001).view(np.float32)}
    ),
    "no unit vectors": lambda t: t | {"success.queries": t["success.queries"] * 9},
    "whole numbers": lambda t: t | {"success.queries": t["success.queries"].astype(np.int8)},
    "doubles": lambda t: t | {"cache": t["cache"].astype(np.float64)},
    "one axis": lambda t: t | {"cache": t["cache"][0]},
    "no axis": lambda t: t | {"cache": np.array(1, np.float32)},
    "fewer cached": lambda t: t | {"cache": t["cache"][:-1]},
    "two dimensions": lambda t: t | {"cache": of_dimension_8(t)["cache"]},
    "another dimension": of_dimension_8,
    "no cache": lambda t: {n: v for n, v in t.items() if n != "cache"},
    "fewer scores": lambda t: t | {"recent.bonus": t["recent.bonus"][:-1]},
    "scores that are NaN": lambda t: t | {"recent.bonus": t["recent.bonus"] * np.float32("nan")},
}


@pytest.mark.parametrize("name", CHANGED_TENSORS)
def test_vectors_that_do_not_go_with_the_rest_are_refused_though_hashes_agree(snapshot: Path, name: str) -> None:
    path = snapshot / "vectors.safetensors"
    changed = CHANGED_TENSORS[name](load_file(path))
    save_file({key: np.ascontiguousarray(value) for key, value in changed.items()}, path)
    refused(snapshot)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_version": "4"},
        {"memory_version": -1},
        {"memory_version": 1e999},
        {"windows": {"exploit": "ab", "explore": []}},
        {"windows": {"exploit": [float("nan")], "explore": []}},
        {"windows": []},
        {"next_ids": {"success": 0, "failure": 0}},
        {"next_ids": {}},
        {"evicted": {"success": None, "failure": 0}},
        {"recent": [["0/0", -5, 1]]},
        {"recent": [["0/0", 10**9, 1]]},
        {"recent": 5},
    ],
)
def test_a_snapshot_manifest_of_other_types_or_counts_is_refused(snapshot: Path, changes: dict[str, Any]) -> None:
    edit_json(snapshot / "manifest.json", **changes)
    assert next(iter(changes)) in refused(snapshot)


def change_rows(path: Path, **changes: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist([row | changes for row in table.to_pylist()], schema=table.schema), path)


@pytest.mark.parametrize(
    "changes", [{"query_id": 0}, {"question": "same"}, {"question": None}, {"store": "other"}, {"query_id": 2**62}]
)
def test_episodes_that_contradict_each_other_are_refused(snapshot: Path, changes: dict[str, Any]) -> None:
    change_rows(snapshot / "episodes.parquet", **changes)
    refused(snapshot)


@pytest.mark.parametrize("file", ["episodes.parquet", "cache.parquet"])
def test_a_zip_bomb_in_a_snapshot_is_refused(snapshot: Path, zip_bomb: Path, file: str) -> None:
    shutil.copy(zip_bomb, snapshot / file)
    assert "unpacks to" in refused(snapshot)


@pytest.mark.parametrize("hashes", [{}, {"../../../etc/passwd": "0"}, {"vectors.safetensors": 5}, []])
def test_a_snapshot_manifest_must_name_the_three_files(snapshot: Path, hashes: Any) -> None:
    edit_json(snapshot / "manifest.json", sha256=hashes)
    with pytest.raises(MemoryServiceError, match=snapshot.name):
        read_snapshot(snapshot)


def test_a_link_in_a_snapshot_is_refused(snapshot: Path, tmp_path: Path) -> None:
    shutil.move(snapshot / "cache.parquet", tmp_path / "elsewhere")
    (snapshot / "cache.parquet").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MemoryServiceError, match="a link"):
        read_snapshot(snapshot)


# configurations

BAD_CONFIGS: dict[str, tuple[bytes, str]] = {
    "a run that climbs": (b'run.name = "../../etc"', "run.name"),
    "a run that is absolute": (b'run.name = "/etc/cron.d/x"', "run.name"),
    "a run that ends in a line": (b'run.name = "run\\n"', "run.name"),
    "a run that is a flag": (b'run.name = "-rf"', "run.name"),
    "a run that is dots": (b'run.name = ".."', "run.name"),
    "a NUL in a path": (b'run.directory = "a\\u0000b"', "run.directory.*NUL"),
    "a NUL in a dataset": (b'[task]\nkind = "file"\npath = "a\\u0000.jsonl"', "task.path.*NUL"),
    "a number beyond 64 bits": (b"run.seed = 99999999999999999999999999", "run.seed"),
    "a number of many digits": (b"run.seed = " + b"9" * 5000, "not valid TOML"),
    "an infinite number": (b"actors.temperature = inf", "temperature"),
    "lists in lists": (b"task.generator_params = {a = " + b"[" * 5000 + b"]" * 5000 + b"}", "not valid TOML"),
    "lists in lists, fewer": (b"task.generator_params = {a = " + b"[" * 60 + b"]" * 60 + b"}", "more than 32 deep"),
    "tables in tables": (b"[task.generator_params" + b".a" * 20_000 + b"]", "more than 32 deep"),
    "no UTF-8": (b"\xff\xfe", "cannot be read"),
    "a NUL byte": (b"\x00", "not valid TOML"),
    "a pickle": (pickle.dumps({"run": 1}), "cannot be read|not valid TOML"),
    "too long": (b"#" * (2**20 + 1), "no configuration is as long"),
    "many wrong keys": (b"".join(b"key%d = 1\n" % i for i in range(60_000)), "59950 more"),
    "a line to backtrack over": (b'x = """\n[' + b" " * 900_000 + b'\n"""', "unknown section 'x'"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_configuration_made_to_do_harm_is_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD_CONFIGS[name]
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(tmp_path / "a.toml")
    assert "a.toml" in str(error.value)


def test_a_configuration_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="no configuration is as long"):
        load_config(Path("/dev/zero"))


@pytest.mark.parametrize(
    "override",
    [
        "run.name=../x",
        "run.seed=" + "9" * 5000,
        "task.generator_params.a=" + "[" * 5000 + "]" * 5000,
        "x",
        "=1",
        "run.seed.a=1",
        "a" + ".a" * 5000 + "=1",
    ],
)
def test_an_override_made_to_do_harm_is_refused(tmp_path: Path, override: str) -> None:
    (tmp_path / "a.toml").write_text("run.seed = 1")
    with pytest.raises(ConfigError):
        load_config(tmp_path / "a.toml", [override])


# datasets


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "' + b"a" * MAX_LINE_BYTES + b'"}', "line 1: too large"),
        (b"[" * DEEP, "line 1: not JSON"),
        (b'{"question": ' * DEEP, "line 1: not JSON"),
        (b'{"question": "1 + 1?", "answer": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        (b'{"question": "1\\u0000+ 1?", "answer": "2"}', "line 1: 'question' holds a NUL"),
        (b'{"question": "\\ud800", "answer": "2"}', "line 1: 'question' holds .* surrogate"),
        (b'{"question": "1 + 1?\x00", "answer": "2"}', "line 1: not JSON"),
        (b'{"question": {"a": ["b"]}, "answer": "2"}', "line 1: 'question' is"),
        (b'{"question": ' + b"[" * 500 + b"]" * 500 + b', "answer": "2"}', "line 1: 'question' is"),
        (b'{"question": "1 + 1?", "answer": 1e999}', "line 1: 'answer' is Infinity"),
        (
            b'{"prompt": [{"role": "user", "content": ' + b"[" * 500 + b"]" * 500 + b'}], "answer": "2"}',
            "line 1: 'prompt'",
        ),
        (b'{"prompt": [{"role": "user", "content": "\\ud800"}], "answer": "2"}', "line 1: 'prompt' holds .* surrogate"),
        (b"\xff\xfe", "line 1: not UTF-8"),
        (b"{" + b",".join(b'"k%d": 1' % i for i in range(200_000)) + b"}", "line 1: no key 'question'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_made_to_do_harm_is_refused_with_its_place(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    with pytest.raises(DataError, match=message) as error:
        file_task(TaskSettings(kind="file", path=str(tmp_path / "a.jsonl")))
    assert len(str(error.value)) < 4000


def test_a_dataset_of_values_that_python_cannot_hold_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": pa.array([2**62], pa.timestamp("ms"))}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        read_rows(tmp_path / "a.parquet")


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(Path("a\0.jsonl"))


# run directories


def make_run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.toml").write_text('model.name = "scripted"\nactors.engine = "scripted"\n')
    (path / "manifest.json").write_text("{}")
    return path


NO_RECORDS = [b"", b"[]", b"\xff\xfe", b"[" * DEEP, b"9" * 5000, b"null"]


@pytest.mark.parametrize("content", NO_RECORDS)
def test_a_sign_of_life_that_a_power_cut_tore_is_none(tmp_path: Path, content: bytes) -> None:
    run = make_run(tmp_path)
    (run / "status.json").write_bytes(content)
    assert read_run(run).status is None


@pytest.mark.parametrize("file", ["manifest.json", "summary.json"])
@pytest.mark.parametrize("content", NO_RECORDS)
def test_a_run_whose_records_are_no_records_is_refused_by_file(tmp_path: Path, file: str, content: bytes) -> None:
    run = make_run(tmp_path)
    (run / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        read_run(run)


@pytest.mark.parametrize("file", ["metrics.jsonl", "eval.jsonl", "events.jsonl"])
@pytest.mark.parametrize("line", [b"[1]", b"{", b"\xff", b"[" * DEEP, b"5"])
def test_a_run_with_a_line_that_is_no_record_is_refused_by_line(tmp_path: Path, file: str, line: bytes) -> None:
    run = make_run(tmp_path)
    (run / file).write_bytes(b'{"step": NaN}\n' + line + b"\n")
    with pytest.raises(DataError, match=rf"{file}, line 2"):
        read_run(run)


def test_records_that_never_end_or_are_too_large_are_refused_unread(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "status.json").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        read_run(run)
    (run / "status.json").unlink()
    with (run / "metrics.jsonl").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match=r"metrics\.jsonl has"):
        read_run(run)


@pytest.mark.parametrize("pid", ["1; rm", -1, 0, 2**70, None, [1], 1e999])
def test_a_process_that_cannot_be_is_not_alive(tmp_path: Path, pid: Any) -> None:
    import platform

    (tmp_path / "process.json").write_text(json.dumps({"pid": pid, "host": platform.node()}))
    assert not owner_alive(tmp_path)


def test_a_run_without_the_name_of_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no model_path"):
        _ = read_run(make_run(tmp_path)).model_path


def test_a_group_file_written_by_memr_is_still_read(tmp_path: Path) -> None:
    write_groups([make_scored(make_group(3))], tmp_path / "a.parquet")
    assert read_groups(tmp_path / "a.parquet")[0].group.lease_id == 3
