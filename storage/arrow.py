"""Arrow schemas of what goes to disk, one row per rollout, and the way there and back.

A group is as many rows as it has rollouts; the group's columns repeat (Parquet's dictionary encoding
makes that cheap) so that every row can be read alone, with any Parquet reader.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import DataError
from contracts.problem import Purpose
from contracts.rollout import BonusStage, FinishReason, Neighbour, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Invalid, Scored, Verdict
from storage.bounded_json import parse_fields
from storage.bounded_tables import check_schema, read_parquet, read_stream
from storage.durable import place_file

GROUP_FIELDS: list[tuple[str, pa.DataType]] = [
    ("lease_id", pa.int64()),
    ("attempt", pa.int32()),
    ("problem_id", pa.string()),
    ("question", pa.string()),
    ("prompt", pa.list_(pa.int32())),
    ("policy_version", pa.int64()),
    ("purpose", pa.string()),
    ("temperature", pa.float64()),
    ("worker_id", pa.string()),
    ("started_s", pa.float64()),
    ("finished_s", pa.float64()),
]
ROLLOUT_FIELDS: list[tuple[str, pa.DataType]] = [
    ("rollout_id", pa.string()),
    ("tokens", pa.list_(pa.int32())),
    ("logprobs", pa.list_(pa.float32())),
    ("policy_mask", pa.list_(pa.bool_())),
    ("turn_ends", pa.list_(pa.int32())),
    ("outcomes", pa.list_(pa.string())),
    ("finish_reason", pa.string()),
    ("text", pa.string()),
    ("task_reward", pa.float64()),
    ("correct", pa.bool_()),
    ("reward_parts", pa.string()),
    ("invalid_reason", pa.string()),
    ("seed", pa.int64()),
]
SCORE_FIELDS: list[tuple[str, pa.DataType]] = [
    ("exploit", pa.float32()),
    ("explore", pa.float32()),
    ("bonus", pa.float32()),
    ("bonus_stage", pa.string()),
    ("memory_version", pa.int64()),
    ("late", pa.bool_()),
    ("neighbours", pa.string()),
]
SCORED_GROUP_SCHEMA = pa.schema(GROUP_FIELDS + ROLLOUT_FIELDS + SCORE_FIELDS)
NULLABLE = ("task_reward", "correct", "reward_parts", "invalid_reason")
"""A verdict is scored or invalid."""


def groups_to_table(groups: Sequence[ScoredGroup]) -> pa.Table:
    """One row per rollout, groups in order; the schema is SCORED_GROUP_SCHEMA."""
    rows = [row for scored in groups for row in _rows(scored)]
    return pa.Table.from_pylist(rows, schema=SCORED_GROUP_SCHEMA)


def groups_from_table(table: pa.Table) -> list[ScoredGroup]:
    """The groups back, in order. Raises DataError where columns or values are not ours."""
    check_schema("rollout groups", table.schema, SCORED_GROUP_SCHEMA)
    try:
        rows = table.to_pylist()
        groups = groupby(rows, key=lambda row: (row["lease_id"], row["attempt"]))
        return [_group(list(members)) for _, members in groups]
    except (DataError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"not a table of rollout groups: {error}") from error


def groups_to_bytes(groups: Sequence[ScoredGroup]) -> bytes:
    """The same table as an Arrow IPC stream, for the run's log."""
    table, sink = groups_to_table(groups), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def groups_from_bytes(payload: bytes) -> list[ScoredGroup]:
    """Raises DataError for bytes that are not such a stream."""
    return groups_from_table(read_stream(payload, SCORED_GROUP_SCHEMA, "a stream of rollout groups", NULLABLE))


def write_groups(groups: Sequence[ScoredGroup], path: Path) -> None:
    """One Parquet file, whole or not there for who looks; safe from a power cut once it and its folder were synced."""
    place_file(path, groups_to_parquet(groups))


def groups_to_parquet(groups: Sequence[ScoredGroup]) -> memoryview:
    """A Parquet file's bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(groups_to_table(groups), sink, compression="zstd")
    return memoryview(sink.getvalue())


def read_groups(path: Path) -> list[ScoredGroup]:
    """Raises DataError, naming the file, if it is not Parquet, not ours, or too large."""
    table = read_parquet(path, SCORED_GROUP_SCHEMA, NULLABLE)
    try:
        return groups_from_table(table)
    except DataError as error:
        raise DataError(f"cannot read rollout groups from {path}: {error}") from error


def _rows(scored: ScoredGroup) -> list[dict[str, Any]]:
    group = scored.group
    shared = {
        "lease_id": group.lease_id,
        "attempt": group.attempt,
        "problem_id": group.problem_id,
        "question": group.question,
        "prompt": group.prompt_P,
        "policy_version": group.policy_version,
        "purpose": group.purpose.value,
        "temperature": group.temperature,
        "worker_id": group.worker_id,
        "started_s": group.started_s,
        "finished_s": group.finished_s,
        "bonus_stage": scored.bonus_stage.value,
        "memory_version": scored.memory_version,
        "late": scored.late,
        "neighbours": json.dumps([_neighbour_dict(n) for n in scored.neighbours]),
    }
    return [
        shared
        | _rollout_row(rollout)
        | {"exploit": scored.exploit_G[i], "explore": scored.explore_G[i], "bonus": scored.bonus_G[i]}
        for i, rollout in enumerate(group.rollouts)
    ]


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
    verdict = rollout.verdict
    scored = verdict if isinstance(verdict, Scored) else None
    return {
        "rollout_id": rollout.rollout_id,
        "tokens": rollout.tokens_T,
        "logprobs": rollout.logprobs_T,
        "policy_mask": rollout.policy_mask_T,
        "turn_ends": rollout.turn_ends_U,
        "outcomes": [outcome.value for outcome in rollout.outcomes],
        "finish_reason": rollout.finish_reason.value,
        "text": rollout.text,
        "task_reward": scored.value if scored else None,
        "correct": scored.correct if scored else None,
        "reward_parts": json.dumps(dict(scored.parts)) if scored else None,
        "invalid_reason": verdict.reason if isinstance(verdict, Invalid) else None,
        "seed": rollout.seed,
    }


def _neighbour_dict(neighbour: Neighbour) -> dict[str, Any]:
    return {name: getattr(neighbour, name) for name in Neighbour.__slots__}


def _group(rows: list[dict[str, Any]]) -> ScoredGroup:
    first = rows[0]
    group = RolloutGroup(
        lease_id=first["lease_id"],
        problem_id=first["problem_id"],
        question=first["question"],
        prompt_P=np.asarray(first["prompt"], np.int32),
        rollouts=tuple(_rollout(row) for row in rows),
        policy_version=first["policy_version"],
        purpose=Purpose(first["purpose"]),
        temperature=first["temperature"],
        worker_id=first["worker_id"],
        attempt=first["attempt"],
        started_s=first["started_s"],
        finished_s=first["finished_s"],
    )
    return ScoredGroup(
        group=group,
        exploit_G=np.asarray([row["exploit"] for row in rows], np.float32),
        explore_G=np.asarray([row["explore"] for row in rows], np.float32),
        bonus_G=np.asarray([row["bonus"] for row in rows], np.float32),
        bonus_stage=BonusStage(first["bonus_stage"]),
        memory_version=first["memory_version"],
        late=first["late"],
        neighbours=tuple(parse_fields(first["neighbours"], list[Neighbour], "column neighbours")),
    )


def _rollout(row: dict[str, Any]) -> Rollout:
    return Rollout(
        rollout_id=row["rollout_id"],
        tokens_T=np.asarray(row["tokens"], np.int32),
        logprobs_T=np.asarray(row["logprobs"], np.float32),
        policy_mask_T=np.asarray(row["policy_mask"], np.bool_),
        turn_ends_U=np.asarray(row["turn_ends"], np.int32),
        outcomes=tuple(TurnOutcome(value) for value in row["outcomes"]),
        finish_reason=FinishReason(row["finish_reason"]),
        text=row["text"],
        verdict=_verdict(row),
        seed=row["seed"],
    )


def _verdict(row: dict[str, Any]) -> Verdict:
    if row["invalid_reason"] is not None:
        return Invalid(row["invalid_reason"])
    if row["task_reward"] is None or row["correct"] is None or row["reward_parts"] is None:
        raise ValueError(f"rollout {row['rollout_id']} is neither scored nor invalid")
    parts = parse_fields(row["reward_parts"], dict[str, float], "column reward_parts")
    return Scored(row["task_reward"], row["correct"], parts)
