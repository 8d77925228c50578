"""A memory on disk: vectors, texts, windows, counters, recent scores as one unit.

    snapshot-00000042/  vectors.safetensors  episodes.parquet  cache.parquet  manifest.json (last; SHA-256 of the others)

Written under a temporary name, fsynced, renamed. A snapshot that does not match its manifest is refused whole.
"""

import hashlib
import json
import os
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

from contracts.errors import MemoryServiceError
from memory_service.episodes import Episode, Query

VECTORS, EPISODES, CACHE = "vectors.safetensors", "episodes.parquet", "cache.parquet"
MANIFEST = "manifest.json"
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
    (temporary / MANIFEST).write_text(json.dumps(manifest))
    for file in temporary.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(directory / name, ignore_errors=True)
    temporary.rename(directory / name)
    return name


def read_snapshot(folder: Path) -> MemoryState:
    """Raises MemoryServiceError, naming the file, for anything that is not what the manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for file, expected in manifest["sha256"].items():
            if Path(file).name != file or _sha256(folder / file) != expected:
                raise MemoryServiceError(f"{folder / file} does not match its manifest; use an older snapshot")
        tensors = load_file(folder / VECTORS)
        rows = pq.read_table(folder / EPISODES, schema=_SCHEMA).to_pylist()
        texts = pq.read_table(folder / CACHE, schema=_CACHE_SCHEMA).column("text").to_pylist()
        return _state(manifest, tensors, rows, texts)
    except (OSError, KeyError, ValueError, TypeError, IndexError, pa.ArrowException, SafetensorError) as error:
        raise MemoryServiceError(f"{folder} is no snapshot of a memory that can be read: {error!r}") from error


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
    for i, part in enumerate(("exploit", "explore", "bonus")):
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
    manifest: dict[str, Any], tensors: dict[str, NDArray[np.float32]], rows: list[dict[str, Any]], texts: list[str]
) -> MemoryState:
    names = ("encoder_fingerprint", "memory_version", "groups_scored", "rollouts_scored", "duplicates", "batch_key")
    return MemoryState(
        **{name: manifest[name] for name in (*names, "windows", "next_ids", "evicted")},
        stores={name: _queries(name, tensors, rows) for name in ("success", "failure")},
        recent=_recent(manifest["recent"], tensors),
        cache=(texts, tensors["cache"]),
    )


def _queries(name: str, tensors: dict[str, NDArray[np.float32]], rows: list[dict[str, Any]]) -> list[Query]:
    """Rows are in order of insertion, so the order of age comes back with them."""
    queries: dict[int, Query] = {}
    mine = [row for row in rows if row["store"] == name]
    if len(mine) != len(tensors[f"{name}.responses"]):
        raise ValueError(f"{len(mine)} {name} episodes, {len(tensors[f'{name}.responses'])} vectors")
    for row, vector_D in zip(mine, tensors[f"{name}.responses"], strict=True):
        query = queries.get(row["query_id"])
        if query is None:
            vector_of_query = tensors[f"{name}.queries"][len(queries)]
            query = queries[row["query_id"]] = Query(row["query_id"], row["question"], vector_of_query, deque())
        query.episodes.append(Episode(row["rollout_id"], row["response"], vector_D))
    return list(queries.values())


def _recent(entries: Sequence[Sequence[Any]], tensors: dict[str, NDArray[np.float32]]) -> dict[str, RecentScores]:
    recent, start = {}, 0
    for name, size, version in entries:
        block = slice(start, start + size)
        exploit, explore, bonus = (tensors[f"recent.{part}"][block] for part in ("exploit", "explore", "bonus"))
        recent[name] = (exploit, explore, bonus, version)
        start += size
    return recent


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
