"""Whatever bytes a reader is given, it succeeds or raises an error of memr's own; nothing else ever comes out.

One table of readers: the files each of them reads, written by memr itself, and the call. Each is fuzzed in three ways:
any bytes in place of a file; a good file cut short or with bits changed; and, where the file is JSON, any other JSON.
Hashes are made to agree again after the change, so that what is behind them is reached.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config.run_config import load_config
from cluster.record.adapter_registry import read_adapter, write_adapter
from cluster.record.checkpoint import CheckpointState, _read, _write
from cluster.record.history import History, Kind, RecoveredState, read_recovered
from cluster.record.ledger import LeaseStatus, Ledger, LedgerEvent
from cluster.record.run_log import BEGINNING, Position, RunLog
from cluster.record.run_view import read_run
from contracts.errors import MemrError
from learner import checkpoint as learner_checkpoint
from learner.learner import Learner
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.service import EpisodicMemory
from storage.arrow import groups_from_bytes, groups_to_bytes, read_groups, write_groups
from tasks.config import TaskSettings
from tasks.file_task import file_task
from tests.fakes import make_adapter, make_group, make_scored
from tests.unit.learner.builders import tiny_learner

fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def memory() -> EpisodicMemory:
    return EpisodicMemory(MemorySettings(), HashEncoder(16))


def write_scored_group(folder: Path) -> None:
    write_groups([make_scored(make_group(0))], folder / "a.parquet")


def write_stream(folder: Path) -> None:
    (folder / "a.arrow").write_bytes(groups_to_bytes([make_scored(make_group(0))]))


def write_learner(folder: Path) -> None:
    tiny_learner().save(folder)


def write_snapshot(folder: Path) -> None:
    source = memory()
    source.score([make_group(i) for i in range(3)])
    (folder / source.save(folder)).rename(folder / "snapshot")


def write_checkpoint(folder: Path) -> None:
    ledger = Ledger(lambda _event: None)
    ledger.buffered(ledger.issue("p"))
    ledger.issue("q")
    (folder / "learner").mkdir()
    (folder / "learner" / "scripted.json").write_text('{"policy_version": 4}')
    _write(
        folder, CheckpointState(4, Position(0, 10), ledger.snapshot(), (make_scored(make_group(0)),), (make_group(1),))
    )


def write_an_adapter(folder: Path) -> None:
    write_adapter(make_adapter(1), folder).rename(folder / "adapter")


def write_log(folder: Path) -> None:
    log = RunLog(folder)
    history, scored = History(log), make_scored(make_group(0))
    history.ledger_event(LedgerEvent(0, "p", LeaseStatus.IN_FLIGHT))
    history.sampled([scored.group, make_group(1)])
    history.scored([scored])
    history.went_on(1, late=True)
    history.trained(1, [0], "hash")
    history.ledger_event(LedgerEvent(1, "p", LeaseStatus.DROPPED, "why"))
    history.close()


def write_problems(folder: Path) -> None:
    rows = [{"question": f"What is {i} + {i}?", "answer": str(2 * i), "id": f"p{i}"} for i in range(5)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")


def write_run(folder: Path) -> None:
    (folder / "config.toml").write_text('model.name = "scripted"\nactors.engine = "scripted"\n[run]\nseed = 1\n')
    for name in ("manifest.json", "status.json", "summary.json"):
        (folder / name).write_text('{"exit_code": 0, "updates": 3}')
    for name in ("metrics.jsonl", "eval.jsonl", "events.jsonl"):
        (folder / name).write_text('{"step": 1, "loss": NaN}\n{"step": 2}\n')


def read_checkpoint_folder(folder: Path) -> None:
    _read(folder)


def read_renamed_adapter(folder: Path) -> None:
    """Under the name that its manifest asks for, so that it is read to the end."""
    try:
        fields = json.loads((folder / "adapter" / "manifest.json").read_text())
        name = f"v{fields['policy_version']:06d}-{fields['weights_hash'][:12]}"
        (folder / "adapter").rename(folder / name)
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        name = "adapter"
    read_adapter(folder / name)


def rehash(*places: str) -> Callable[[Path, str], None]:
    """Put the changed file's hash where the manifest holds it: (manifest, key or "sha256")."""
    manifest, key = places

    def apply(folder: Path, name: str) -> None:
        path = folder / manifest
        if name == manifest or (key != "sha256" and not name.endswith(".safetensors")):
            return
        fields = json.loads(path.read_text())
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if key == "sha256":
            fields[key][Path(name).name] = digest
        else:
            fields[key] = digest
        path.write_text(json.dumps(fields))

    return apply


@dataclass(frozen=True, slots=True)
class Reader:
    """write: good files in a folder. read: all of them. agree: make the folder's hashes agree with a changed file."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    files: tuple[str, ...]
    agree: Callable[[Path, str], None] = lambda folder, name: None


LEARNER: list[Learner] = []


def restore_learner(folder: Path) -> None:
    if not LEARNER:
        LEARNER.append(tiny_learner())
    LEARNER[0].restore(folder)


READERS = {
    "groups": Reader(write_scored_group, lambda f: read_groups(f / "a.parquet"), ("a.parquet",)),
    "stream": Reader(write_stream, lambda f: groups_from_bytes((f / "a.arrow").read_bytes()), ("a.arrow",)),
    "learner": Reader(
        write_learner,
        restore_learner,
        (learner_checkpoint.TENSORS, learner_checkpoint.MANIFEST),
        rehash(learner_checkpoint.MANIFEST, "tensors_hash"),
    ),
    "snapshot": Reader(
        write_snapshot,
        lambda f: memory().restore(f / "snapshot"),
        tuple(f"snapshot/{n}" for n in ("vectors.safetensors", "episodes.parquet", "cache.parquet", "manifest.json")),
        rehash("snapshot/manifest.json", "sha256"),
    ),
    "checkpoint": Reader(
        write_checkpoint,
        read_checkpoint_folder,
        ("ledger.parquet", "buffered.parquet", "sampled.parquet", "checkpoint.json"),
        rehash("checkpoint.json", "sha256"),
    ),
    "adapter": Reader(
        write_an_adapter,
        read_renamed_adapter,
        ("adapter/adapter_model.safetensors", "adapter/manifest.json", "adapter/adapter_config.json"),
        rehash("adapter/manifest.json", "weights_hash"),
    ),
    "log": Reader(write_log, lambda f: read_recovered(f, RecoveredState(), BEGINNING, memory_on=True), ("000000.log",)),
    "problems in lines": Reader(
        write_problems, lambda f: file_task(TaskSettings(kind="file", path=str(f / "a.jsonl"))), ("a.jsonl",)
    ),
    "problems in Parquet": Reader(
        write_problems, lambda f: file_task(TaskSettings(kind="file", path=str(f / "a.parquet"))), ("a.parquet",)
    ),
    "configuration": Reader(write_run, lambda f: load_config(f / "config.toml"), ("config.toml",)),
    "run": Reader(write_run, read_run, ("manifest.json", "status.json", "metrics.jsonl", "config.toml")),
}
FILES = [(name, file) for name, reader in READERS.items() for file in reader.files]
JSON_FILES = [(name, file) for name, file in FILES if file.endswith((".json", ".jsonl"))]


class Bench:
    """Good files of every reader, written once; `try_with` reads them with one file changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._good: dict[str, dict[str, bytes]] = {}
        self._count = 0

    def good(self, name: str) -> dict[str, bytes]:
        if name not in self._good:
            folder = self._folder / f"good-{len(self._good)}"
            folder.mkdir()
            READERS[name].write(folder)
            files = [path for path in folder.rglob("*") if path.is_file()]
            self._good[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        return self._good[name]

    def try_with(self, name: str, file: str, content: bytes) -> bool:
        """Whether the reader took it. Raises whatever it raised that is no error of memr's."""
        self._count += 1
        folder = self._folder / f"{self._count:06d}"
        for path, data in (self.good(name) | {file: content}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        READERS[name].agree(folder, file)
        try:
            READERS[name].read(folder)
        except MemrError:
            return False
        return True


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", READERS)
def test_the_unchanged_files_are_read(bench: Bench, name: str) -> None:
    file = READERS[name].files[0]
    assert bench.try_with(name, file, bench.good(name)[file])


@pytest.mark.parametrize(("name", "file"), FILES)
@settings(fuzz, max_examples=20)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(bench: Bench, name: str, file: str, content: bytes) -> None:
    bench.try_with(name, file, content)


@pytest.mark.parametrize(("name", "file"), FILES)
@fuzz
@given(data=st.data())
def test_a_file_cut_short_or_with_bytes_changed_is_read_or_refused(
    bench: Bench, name: str, file: str, data: st.DataObject
) -> None:
    content = bytearray(bench.good(name)[file])
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content)), label="length")]
    changes = st.lists(st.tuples(st.integers(0, max(0, len(content) - 1)), st.integers(0, 255)), max_size=6)
    for place, value in data.draw(changes, label="changes") if content else ():
        content[place] = value
    bench.try_with(name, file, bytes(content))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3))


def changed(data: st.DataObject, content: Any) -> Any:
    """A JSON document with one value somewhere replaced, removed or added."""
    if not isinstance(content, dict | list) or not content or data.draw(st.integers(0, 3)) == 0:
        return data.draw(values)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = data.draw(st.sampled_from(keys))
    copy: Any = content.copy()
    if data.draw(st.integers(0, 4)) == 0:
        del copy[key]
    else:
        copy[key] = changed(data, content[key])
    return copy


@pytest.mark.parametrize(("name", "file"), JSON_FILES)
@fuzz
@given(data=st.data())
def test_other_json_is_read_or_refused(bench: Bench, name: str, file: str, data: st.DataObject) -> None:
    good = bench.good(name)[file].decode()
    documents = [json.loads(line) for line in good.splitlines()] if file.endswith("l") else [json.loads(good)]
    lines = [json.dumps(changed(data, document)) for document in documents]
    bench.try_with(name, file, "".join(line + "\n" for line in lines).encode())


FRAMES: list[tuple[Kind, Any]] = [
    (Kind.ISSUED, {"lease": 0, "problem": "p"}),
    (Kind.ENDED, {"lease": 0, "problem": "p", "fate": "failed", "reason": "r"}),
    (Kind.LATE, {"lease": 0}),
    (
        Kind.SCORED,
        [
            {
                "lease": 0,
                "exploit": [0.5, 0],
                "explore": [0, 1],
                "bonus": [0, 0],
                "stage": "before_normalisation",
                "memory_version": 1,
            }
        ],
    ),
    (Kind.COUNTED, {"tokens": 1, "scored": 1, "invalid": 1, "failed": {"scorer": 1}}),
    (Kind.TRAINED, {"step": 1, "leases": [0], "weights_hash": "h"}),
]


def read_frames(folder: Path, *frames: tuple[int, bytes]) -> None:
    """Behind a sampled group; every checksum is right."""
    log = RunLog(folder)
    History(log).sampled([make_group(0)])
    for kind, payload in frames:
        log.append(kind, payload)
    log.close()
    with suppress(MemrError):
        read_recovered(folder, RecoveredState(), BEGINNING, memory_on=True)


@fuzz
@given(kind=st.integers(1, 255) | st.sampled_from(Kind), payload=st.binary(max_size=100))
def test_a_frame_of_any_kind_and_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: int, payload: bytes
) -> None:
    read_frames(tmp_path_factory.mktemp("log"), (kind, payload))


@pytest.mark.parametrize(("kind", "fields"), FRAMES, ids=lambda value: getattr(value, "name", ""))
@fuzz
@given(data=st.data())
def test_a_frame_of_other_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, fields: Any, data: st.DataObject
) -> None:
    read_frames(tmp_path_factory.mktemp("log"), (kind, json.dumps(changed(data, fields)).encode()))


@fuzz
@given(data=st.data())
def test_a_frame_of_changed_groups_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The checksum is right, the Arrow stream is not."""
    payload = bytearray(groups_to_bytes([make_scored(make_group(1))]))
    places = st.integers(0, len(payload) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        payload[place] = value
    read_frames(tmp_path_factory.mktemp("log"), (Kind.SAMPLED, bytes(payload)))


toml_keys = st.sampled_from(
    ["run", "name", "seed", "actors", "cluster", "task", "path", "generator_params", "a", "rewards"]
)
toml_values = st.sampled_from(
    ["1", "-1", "9" * 30, "nan", "inf", '"../x"', '"\\u0000"', "true", "[]", "[[1]]", "{a = 1}", "1979-05-27", '"', ""]
)


@fuzz
@given(
    entries=st.lists(st.tuples(st.lists(toml_keys, min_size=1, max_size=3), toml_values), max_size=5), table=toml_keys
)
def test_any_configuration_of_known_words_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[list[str], str]], table: str
) -> None:
    lines = [f"{'.'.join(keys)} = {value}" for keys, value in entries]
    path = tmp_path_factory.mktemp("config") / "a.toml"
    path.write_text("\n".join([*lines[:2], f"[{table}]", *lines[2:]]))
    for overrides in ([], [f"{'.'.join(keys)}={value}" for keys, value in entries]):
        with suppress(MemrError):
            load_config(path, overrides)
