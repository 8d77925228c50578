"""Claims about memory: episodes scored and written per second, encoder included, against the published Memory-R
class on the same texts; read time of a group of 16 by size of memory, against the group's embedding time.

The published class is not part of memr: give a checkout of it with --published (the folder that holds
rewards/ir_knn_st.py). Without it only our side is measured. Texts: questions and worked answers of a GSM8K file.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results_table import show
from contracts.problem import Purpose
from contracts.rollout import FinishReason, Rollout, RolloutGroup, TurnOutcome
from contracts.verdict import Scored
from memory_service.config import MemorySettings
from memory_service.encoder import load_encoder
from memory_service.episodes import Episode, Query
from memory_service.service import EpisodicMemory
from memory_service.snapshot import MemoryState, write_snapshot

G = 16


def group(lease_id: int, question: str, answers: Sequence[str], random: np.random.Generator) -> RolloutGroup:
    rollouts = tuple(
        Rollout(
            f"{lease_id}/0/{i}",
            np.zeros(1, np.int32),
            np.zeros(1, np.float32),
            np.ones(1, np.bool_),
            np.ones(1, np.int32),
            (TurnOutcome.DONE,),
            FinishReason.STOP,
            text,
            Scored(value, value > 0.5),
            0,
        )
        for i, text in enumerate(answers)
        for value in [float(random.random() < 0.3)]
    )
    return RolloutGroup(
        lease_id, str(lease_id), question, np.zeros(1, np.int32), rollouts, 0, Purpose.TRAIN, 1.0, "b", 0, 0.0, 0.0
    )


def make_groups(path: Path, count: int) -> list[RolloutGroup]:
    """Each question with G answers: its own solution cut and varied, about 100 to 200 tokens as a policy would write."""
    random = np.random.default_rng(0)
    lines = [json.loads(line) for line in path.read_text().splitlines()[: count * 2]]
    groups = []
    for i in range(count):
        texts = [f"{lines[i]['answer']} {lines[random.integers(len(lines))]['answer']}" for _ in range(G)]
        groups.append(group(i, lines[i]["question"], texts, random))
    return groups


def measure_ours(groups: Sequence[RolloutGroup], dtype: str, per_call: int) -> float:
    settings = MemorySettings(profile="memr", encoder_dtype=dtype)  # type: ignore[arg-type]
    memory = EpisodicMemory(settings, load_encoder(settings))
    memory.score(groups[:1])
    start = time.perf_counter()
    for i in range(1, len(groups), per_call):
        memory.score(groups[i : i + per_call])
    return G * (len(groups) - 1) / (time.perf_counter() - start)


def measure_published(checkout: Path, groups: Sequence[RolloutGroup]) -> float:
    """As its training script calls it: per response an insert into one memory, then both scores."""
    module = _load(checkout / "rewards" / "ir_knn_st.py")
    encoder = load_encoder(MemorySettings())
    exploit, explore = (
        module.FastKNNMemory(getattr(encoder, "path", "all-MiniLM-L6-v2"), max_keys=10000, max_values=100)
        for _ in range(2)
    )
    start = time.perf_counter()
    for item in groups:
        for rollout in item.rollouts:
            (exploit if rollout.correct else explore).insert_pair(item.question, rollout.text)
            exploit.novelty_score_mean(item.question, rollout.text, k=1)
            explore.novelty_score_max(item.question, rollout.text, k=1)
    return G * len(groups) / (time.perf_counter() - start)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("published_memory", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path}: not there; --published takes a checkout of the published code")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RandomEncoder:
    """Unit vectors from a generator: texts without an encoder's cost."""

    dimension = 384
    fingerprint = "random"

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._random.standard_normal((len(texts), self.dimension)).astype(np.float32)
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def filled_memory(episodes: int, per_question: int) -> EpisodicMemory:
    """A memory of random vectors, three failures for a success, as a snapshot would bring it back: no group is
    scored to fill it."""
    encoder = RandomEncoder()
    memory = EpisodicMemory(MemorySettings(profile="memr", max_queries=10**7), encoder)
    stores: dict[str, list[Query]] = {"success": [], "failure": []}
    for i in range(episodes // per_question):
        queries = stores["success" if i % 4 == 0 else "failure"]
        vectors = encoder.encode([""] * (per_question + 1))
        responses = deque(Episode(f"{i}/0/{j}", "", vectors[j + 1]) for j in range(per_question))
        queries.append(Query(len(queries), f"question {i}", vectors[0], responses))
    with tempfile.TemporaryDirectory() as folder:
        name = write_snapshot(empty_state(encoder.fingerprint, stores), encoder.dimension, Path(folder))
        memory.restore(Path(folder) / name)
    return memory


def empty_state(fingerprint: str, stores: dict[str, list[Query]]) -> MemoryState:
    nothing = {"success": 0, "failure": 0}
    return MemoryState(
        encoder_fingerprint=fingerprint,
        memory_version=0,
        groups_scored=0,
        rollouts_scored=0,
        duplicates=0,
        batch_key="",
        windows={"exploit": (), "explore": ()},
        next_ids={name: len(queries) for name, queries in stores.items()},
        evicted=nothing,
        stores=stores,
        recent={},
        cache=((), np.empty((0, RandomEncoder.dimension), np.float32)),
    )


def measure_read(episodes: int, reads: int) -> dict[str, float]:
    """`episodes` of two per question; then one group of G per read, scored and written."""
    random = np.random.default_rng(1)
    memory = filled_memory(episodes, per_question=2)
    times = []
    for i in range(reads):
        item = group(10**7 + i, f"new {i}", [f"new {i} {j}" for j in range(G)], random)
        before = memory.report()
        memory.score([item])
        times.append(memory.report().read_s - before.read_s)
    ordered = sorted(times)
    return {
        "episodes": episodes,
        "read p50 ms": 1e3 * ordered[reads // 2],
        "read p99 ms": 1e3 * ordered[int(reads * 0.99)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True, help="GSM8K-like JSONL")
    parser.add_argument("--published", type=Path, help="checkout of the published Memory-R code")
    parser.add_argument("--groups", type=int, default=17)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    groups = make_groups(args.texts, args.groups)
    rows: list[dict[str, Any]] = [
        {
            "what": f"memr, {dtype}, {per_call} group(s) a call",
            "episodes per second": measure_ours(groups, dtype, per_call),
        }
        for dtype, per_call in (("float32", 1), ("float32", 8), ("bfloat16", 1), ("bfloat16", 8))
    ]
    if args.published:
        speed = measure_published(args.published, groups[:4])
        rows = [row | {"against published": f"{row['episodes per second'] / speed:.1f}x"} for row in rows]
        rows.append(
            {"what": "published class, commit a193f4f", "episodes per second": speed, "against published": "1x"}
        )
    show("memory_throughput", "Episodes scored and written per second, encoder included", rows)
    settings = MemorySettings(profile="memr")
    encoder = load_encoder(settings)
    start = time.perf_counter()
    for item in groups[:4]:
        encoder.encode([rollout.text for rollout in item.rollouts])
    embed_ms = 1e3 * (time.perf_counter() - start) / 4
    reads = [measure_read(size, 200) | {"embedding of the group ms": embed_ms} for size in args.sizes]
    show("memory_read", f"Read time of a group of {G} by size of memory", reads)


if __name__ == "__main__":
    main()
