"""A memory on disk: vectors, texts, windows, counters, recent scores as one unit.

    snapshot-00000042/  vectors.safetensors  episodes.parquet  cache.parquet  manifest.json (last; SHA-256 of the others)

Written under a temporary name, synced, renamed. A snapshot that does not match its manifest is refused whole.
"""

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from contracts.errors import DataError, MemoryServiceError
from memory_service.episodes import Episode, Query
from memory_service.vectors import check_unit_vectors
from storage.bounded_json import Count, Finite, Stored, read_fields
from storage.bounded_tables import read_parquet
from storage.durable import place_folder, remove_folder, sync_file, write_file

VECTORS, EPISODES, CACHE = "vectors.safetensors", "episodes.parquet", "cache.parquet"
MANIFEST = "manifest.json"
STORES = ("success", "failure")
SCORES = ("exploit", "explore", "bonus")
MAX_FILE_BYTES = 8 * 2**30
_CACHE_SCHEMA = pa.schema([("text", pa.string())])
_SCHEMA = pa.schema(
    [
        ("store", pa.string()),
        ("query_id", pa.int64()),
        ("question", pa.string()),
        ("rollout_id", pa.string()),
        ("response", pa.string()),
    ]
)
RecentScores = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Everything the service is, apart from its settings and encoder."""

    encoder_fingerprint: str
    memory_version: int
    groups_scored: int
    rollouts_scored: int
    duplicates: int
    batch_key: str
    windows: Mapping[str, Sequence[float]]
    next_ids: Mapping[str, int]
    evicted: Mapping[str, int]
    stores: Mapping[str, Sequence[Query]]
    recent: Mapping[str, RecentScores]
    cache: tuple[Sequence[str], NDArray[np.float32]]


def write_snapshot(state: MemoryState, dimension: int, directory: Path) -> str:
    """Returns the snapshot's name below `directory`."""
    name = f"snapshot-{state.memory_version:08d}"
    temporary = directory / f".{name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_tensors(state, dimension), temporary / VECTORS)
    pq.write_table(pa.Table.from_pylist(_rows(state), schema=_SCHEMA), temporary / EPISODES, compression="zstd")
    pq.write_table(pa.table({"text": pa.array(state.cache[0], pa.string())}, schema=_CACHE_SCHEMA), temporary / CACHE)
    manifest = _counters(state) | {"sha256": {file: _sha256(temporary / file) for file in (VECTORS, EPISODES, CACHE)}}
    for file in (VECTORS, EPISODES, CACHE):
        sync_file(temporary / file)
    write_file(temporary / MANIFEST, json.dumps(manifest).encode())
    if (directory / name).exists():
        remove_folder(directory / name)
    place_folder(temporary, directory / name)
    return name


class _Windows(Stored):
    exploit: list[Finite]
    explore: list[Finite]


class _PerStore(Stored):
    success: Count
    failure: Count


class _Manifest(Stored):
    encoder_fingerprint: str
    memory_version: Count
    groups_scored: Count
    rollouts_scored: Count
    duplicates: Count
    batch_key: str
    windows: _Windows
    next_ids: _PerStore
    evicted: _PerStore
    recent: list[tuple[str, Count, Count]]
    sha256: dict[str, str]


def read_snapshot(folder: Path) -> MemoryState:
    """Raises MemoryServiceError, naming the file, for anything that is not what the manifest says."""
    try:
        manifest = read_fields(folder / MANIFEST, _Manifest)
        _check_files(folder, manifest.sha256)
        tensors = load_file(folder / VECTORS)
        rows = read_parquet(folder / EPISODES, _SCHEMA, nullable=()).to_pylist()
        texts = read_parquet(folder / CACHE, _CACHE_SCHEMA, nullable=()).column("text").to_pylist()
        _check_tensors(manifest, tensors, texts)
        return _state(manifest, tensors, rows, texts)
    except (DataError, MemoryServiceError, OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise MemoryServiceError(
            f"{folder} is no snapshot of a memory that can be read: {error}; use an older snapshot"
        ) from error


def _check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """The three files, no more, no links, as they were written."""
    if expected.keys() != {VECTORS, EPISODES, CACHE}:
        raise ValueError(f"{MANIFEST} names {sorted(expected)[:5]} instead of {VECTORS}, {EPISODES} and {CACHE}")
    for name in expected:
        path = folder / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path} is missing, a link, or larger than {MAX_FILE_BYTES} bytes")
        if _sha256(path) != expected[name]:
            raise ValueError(f"{path} does not match its manifest")


def _check_tensors(manifest: _Manifest, tensors: Mapping[str, NDArray[np.float32]], texts: Sequence[str]) -> None:
    """Rows of one dimension and of length 1 everywhere, one for every text; scores for every recent group."""
    dimension = tensors["cache"].shape[-1]
    for name in ("cache", *(f"{store}.{part}" for store in STORES for part in ("queries", "responses"))):
        check_unit_vectors(_float32(name, tensors[name]), dimension, f"{VECTORS}, {name}")
    if len(texts) != len(tensors["cache"]):
        raise ValueError(f"{len(texts)} texts in {CACHE}, {len(tensors['cache'])} vectors")
    num_scores = sum(size for _, size, _ in manifest.recent)
    for part in SCORES:
        scores = _float32(part, tensors[f"recent.{part}"])
        if scores.shape != (num_scores,) or not np.isfinite(scores).all():
            raise ValueError(f"recent.{part} is not {num_scores} finite numbers, but of shape {scores.shape}")


def _float32(name: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    if tensor.dtype != np.float32:
        raise ValueError(f"{name} holds {tensor.dtype} instead of float32")
    return tensor


def _counters(state: MemoryState) -> dict[str, Any]:
    names = ("encoder_fingerprint", "memory_version", "groups_scored", "rollouts_scored", "duplicates", "batch_key")
    counters: dict[str, Any] = {name: getattr(state, name) for name in names}
    counters |= {name: dict(getattr(state, name)) for name in ("windows", "next_ids", "evicted")}
    counters["recent"] = [[name, len(scores[0]), scores[3]] for name, scores in state.recent.items()]
    return counters


def _tensors(state: MemoryState, dimension: int) -> dict[str, NDArray[np.float32]]:
    tensors = {}
    for name, queries in state.stores.items():
        tensors[f"{name}.queries"] = _stack([query.vector_D for query in queries], dimension)
        tensors[f"{name}.responses"] = _stack([e.vector_D for query in queries for e in query.episodes], dimension)
    tensors["cache"] = np.ascontiguousarray(state.cache[1])
    for i, part in enumerate(SCORES):
        values = [scores[i] for scores in state.recent.values()]
        tensors[f"recent.{part}"] = np.concatenate([*values, np.empty(0, np.float32)]).astype(np.float32)
    return tensors


def _stack(vectors: Sequence[NDArray[np.float32]], dimension: int) -> NDArray[np.float32]:
    return np.stack(vectors) if vectors else np.empty((0, dimension), np.float32)


def _rows(state: MemoryState) -> list[dict[str, Any]]:
    return [
        {
            "store": name,
            "query_id": q.query_id,
            "question": q.question,
            "rollout_id": e.rollout_id,
            "response": e.response,
        }
        for name, queries in state.stores.items()
        for q in queries
        for e in q.episodes
    ]


def _state(
    manifest: _Manifest, tensors: dict[str, NDArray[np.float32]], rows: list[dict[str, Any]], texts: list[str]
) -> MemoryState:
    names = ("encoder_fingerprint", "memory_version", "groups_scored", "rollouts_scored", "duplicates", "batch_key")
    stores = {name: _queries(name, tensors, rows) for name in STORES}
    for name, queries in stores.items():
        if any(query.query_id >= getattr(manifest.next_ids, name) for query in queries):
            raise ValueError(
                f"{name}: a question's id is not below next_ids.{name} = {getattr(manifest.next_ids, name)}"
            )
    return MemoryState(
        **{name: getattr(manifest, name) for name in names},
        windows=dict(manifest.windows),
        next_ids=dict(manifest.next_ids),
        evicted=dict(manifest.evicted),
        stores=stores,
        recent=_recent(manifest.recent, tensors),
        cache=(texts, tensors["cache"]),
    )


def _queries(name: str, tensors: dict[str, NDArray[np.float32]], rows: list[dict[str, Any]]) -> list[Query]:
    """Rows are in order of insertion, so the order of age comes back with them."""
    queries: dict[int, Query] = {}
    mine = [row for row in rows if row["store"] == name]
    questions_QD, responses_ND = tensors[f"{name}.queries"], tensors[f"{name}.responses"]
    ids, questions = {row["query_id"] for row in mine}, {row["question"] for row in mine}
    if len(mine) != len(responses_ND) or not len(ids) == len(questions) == len(questions_QD):
        raise ValueError(
            f"{name}: {len(mine)} episodes and {len(responses_ND)} vectors, {len(ids)} ids, {len(questions)} questions and "
            f"{len(questions_QD)} vectors"
        )
    for row, vector_D in zip(mine, responses_ND, strict=True):
        query = queries.get(row["query_id"])
        if query is None:
            query = Query(row["query_id"], row["question"], questions_QD[len(queries)].copy(), deque())
            queries[row["query_id"]] = query
        if query.question != row["question"]:
            raise ValueError(f"{name}: id {query.query_id} stands for two questions")
        query.episodes.append(Episode(row["rollout_id"], row["response"], vector_D.copy()))
    return list(queries.values())


def _recent(entries: Sequence[Sequence[Any]], tensors: dict[str, NDArray[np.float32]]) -> dict[str, RecentScores]:
    recent, start = {}, 0
    for name, size, version in entries:
        block = slice(start, start + size)
        exploit, explore, bonus = (tensors[f"recent.{part}"][block] for part in SCORES)
        recent[name] = (exploit, explore, bonus, version)
        start += size
    return recent


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
