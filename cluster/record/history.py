"""A run's history: what happened to every problem, every rollout and every update, as frames of the durable log.

 controller --issued, sampled, scored, late, ended, trained--> RunLog          read_recovered: log -> RecoveredState -> Controller

`sampled` carries the rollouts themselves, so that a crash costs optimiser steps since the checkpoint and never rollouts.
`scored` is one call to memory, in its order: replaying the calls gives the same memory. `trained` names a batch in its
order: replaying the batches from a checkpoint gives the same versions again (their hashes are compared). It is on disk
before the version is published: no version that anybody has seen can be lost and made a second time of other rollouts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from cluster.record.ledger import LeaseStatus, LedgerEvent, LedgerSnapshot
from cluster.record.run_log import BEGINNING, Frame, Position, RunLog, read_log
from cluster.record.sampled_counts import SampledCounts, StoredCounts
from contracts.errors import DataError
from contracts.rollout import BonusStage, RolloutGroup, ScoredGroup
from storage.arrow import groups_from_bytes, groups_to_bytes
from storage.bounded_json import Count, Finite, Stored, parse_fields


class Kind(IntEnum):
    """What a frame of the log records; the number is the one on disk."""

    ISSUED = 1
    SAMPLED = 2
    SCORED = 3
    LATE = 4
    ENDED = 5
    TRAINED = 6
    COUNTED = 7


@dataclass(frozen=True, slots=True)
class TrainedBatch:
    """One update: the groups in their order, and what came of it. rolled_back_to: the checkpoint whose weights took the
    place of the update's. counts: of all rollouts that came between it and the update before."""

    step: int
    groups: tuple[ScoredGroup, ...]
    weights_hash: str
    rolled_back_to: Path | None = None
    counts: SampledCounts = field(default_factory=SampledCounts)


@dataclass(slots=True)
class RecoveredState:
    """What an earlier process left. books: of the checkpoint. events, calls of memory, batches: since then. unanswered: groups
    that went on without bonus and that memory has not answered for. counts: of rollouts since the last update."""

    step: int = 0
    books: LedgerSnapshot | None = None
    events: list[LedgerEvent] = field(default_factory=list)
    calls: list[tuple[ScoredGroup, ...]] = field(default_factory=list)
    batches: list[TrainedBatch] = field(default_factory=list)
    buffered: dict[int, ScoredGroup] = field(default_factory=dict)
    sampled: dict[int, RolloutGroup] = field(default_factory=dict)
    unanswered: dict[int, RolloutGroup] = field(default_factory=dict)
    counts: SampledCounts = field(default_factory=SampledCounts)
    checkpoint: Path | None = None
    memory_snapshot: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether anything had been issued."""
        return bool(self.books) or bool(self.events)


class History:
    """The writing end."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    @property
    def position(self) -> Position:
        return self._log.position

    def ledger_event(self, event: LedgerEvent) -> None:
        """Fates that no other frame tells."""
        if event.fate is LeaseStatus.IN_FLIGHT:
            self._json(Kind.ISSUED, {"lease": event.lease_id, "problem": event.problem_id})
        elif event.fate in (LeaseStatus.DROPPED, LeaseStatus.FAILED):
            fate = {"fate": event.fate.value, "reason": event.reason}
            self._json(Kind.ENDED, {"lease": event.lease_id, "problem": event.problem_id} | fate)

    def sampled(self, groups: Sequence[RolloutGroup]) -> None:
        payload = groups_to_bytes([ScoredGroup.without_bonus(group) for group in groups])
        self._log.append(Kind.SAMPLED, payload)

    def counted(self, counts: SampledCounts) -> None:
        """Of rollouts that just came back, beyond what `sampled` tells."""
        self._json(Kind.COUNTED, counts.stored().model_dump())

    def scored(self, scored_groups: Sequence[ScoredGroup]) -> None:
        """One answer of memory, its groups in the order of the call."""
        self._json(Kind.SCORED, [_scores(scored) for scored in scored_groups])

    def went_on(self, lease_id: int, *, late: bool) -> None:
        """The group went on without bonus before memory knew of it: late, or because none was to be paid."""
        self._json(Kind.LATE, {"lease": lease_id} | ({} if late else {"late": False}))

    def trained(self, step: int, lease_ids: Sequence[int], weights_hash: str, rolled_back_to: str = "") -> None:
        """rolled_back_to: name of the checkpoint whose weights took the place of the update's."""
        fields: dict[str, Any] = {"step": step, "leases": list(lease_ids), "weights_hash": weights_hash}
        self._json(Kind.TRAINED, fields | ({"rolled_back_to": rolled_back_to} if rolled_back_to else {}))
        self._log.sync()

    def sync(self) -> None:
        """Everything told so far is safe from a power cut: before anything on disk points into the log."""
        self._log.sync()

    def close(self) -> None:
        self._log.close()

    def _json(self, kind: Kind, fields: Any) -> None:
        self._log.append(kind, json.dumps(fields).encode())


class _Issued(Stored):
    lease: Count
    problem: str


class _Ended(_Issued):
    fate: str
    reason: str


class _Late(Stored):
    lease: Count
    late: bool = True


class _Trained(Stored):
    step: Count
    leases: tuple[Count, ...]
    weights_hash: str
    rolled_back_to: Annotated[str, Field(pattern=r"^(step-\d+)?$")] = ""


class _Scores(Stored):
    lease: Count
    exploit: list[Finite]
    explore: list[Finite]
    bonus: list[Finite]
    stage: str
    memory_version: int


def read_recovered(
    directory: Path, past: RecoveredState, start: Position, *, memory_on: bool, floor: Position = BEGINNING
) -> RecoveredState:
    """`past` as a checkpoint left it at `start`, with everything since then. floor: the furthest position that a checkpoint
    knows. Raises DataError for a log that is not ours, or damaged before the floor."""
    groups = past.unanswered | past.sampled | {lease: scored.group for lease, scored in past.buffered.items()}
    for frame in read_log(directory, start, floor):
        try:
            _apply(past, groups, frame, directory.parent / "checkpoints", memory_on=memory_on)
        except (KeyError, ValueError, DataError) as error:
            raise DataError(
                f"{directory}, segment {frame.end.segment}, before byte {frame.end.offset}: {_why(error)}; restore the log "
                "from a copy, or start the run again under another name"
            ) from error
    return past


def largest_gap(first: ScoredGroup, again: ScoredGroup) -> float:
    """Over intrinsic rewards and bonus of the group's rollouts."""
    pairs = ((first.exploit_G, again.exploit_G), (first.explore_G, again.explore_G), (first.bonus_G, again.bonus_G))
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def _why(error: KeyError | ValueError | DataError) -> str:
    return f"it names lease {error}, which is not there" if isinstance(error, KeyError) else str(error)


def _apply(
    past: RecoveredState, groups: dict[int, RolloutGroup], frame: Frame, checkpoints: Path, *, memory_on: bool
) -> None:
    payload, where = frame.payload, "the frame"
    match Kind(frame.kind):
        case Kind.SAMPLED:
            for empty in groups_from_bytes(payload):
                past.counts.add(empty.group)
                _sampled(past, groups, empty, memory_on=memory_on)
        case Kind.COUNTED:
            past.counts.merge(parse_fields(payload, StoredCounts, where).counts())
        case Kind.ISSUED:
            issued = parse_fields(payload, _Issued, where)
            past.events.append(LedgerEvent(issued.lease, issued.problem, LeaseStatus.IN_FLIGHT))
        case Kind.ENDED:
            ended = parse_fields(payload, _Ended, where)
            past.sampled.pop(ended.lease, None)
            past.buffered.pop(ended.lease, None)
            past.events.append(LedgerEvent(ended.lease, ended.problem, LeaseStatus(ended.fate), ended.reason))
        case Kind.LATE:
            gone = parse_fields(payload, _Late, where)
            past.unanswered[gone.lease] = past.sampled.pop(gone.lease)
            _buffer(past, ScoredGroup.without_bonus(past.unanswered[gone.lease], late=gone.late))
        case Kind.SCORED:
            entries = parse_fields(payload, list[_Scores], where)
            _call(past, tuple(_scored(groups[entry.lease], entry) for entry in entries if entry.lease in groups))
        case Kind.TRAINED:
            _train(past, parse_fields(payload, _Trained, where), checkpoints)


def _sampled(past: RecoveredState, groups: dict[int, RolloutGroup], empty: ScoredGroup, *, memory_on: bool) -> None:
    groups[empty.group.lease_id] = empty.group
    if memory_on:
        past.sampled[empty.group.lease_id] = empty.group
    else:
        _buffer(past, empty)


def _call(past: RecoveredState, call: tuple[ScoredGroup, ...]) -> None:
    past.calls.append(call)
    for scored in call:
        past.unanswered.pop(scored.group.lease_id, None)
        if past.sampled.pop(scored.group.lease_id, None) is not None:
            _buffer(past, scored)


def _train(past: RecoveredState, trained: _Trained, checkpoints: Path) -> None:
    batch = tuple(past.buffered.pop(lease) for lease in trained.leases)
    rolled_back_to = checkpoints / trained.rolled_back_to if trained.rolled_back_to else None
    past.batches.append(TrainedBatch(trained.step, batch, trained.weights_hash, rolled_back_to, past.counts))
    past.counts = SampledCounts()
    for scored in batch:
        group = scored.group
        past.events.append(LedgerEvent(group.lease_id, group.problem_id, LeaseStatus.TRAINED, "", trained.step))


def _buffer(past: RecoveredState, scored: ScoredGroup) -> None:
    past.buffered[scored.group.lease_id] = scored
    past.events.append(LedgerEvent(scored.group.lease_id, scored.group.problem_id, LeaseStatus.BUFFERED))


def _scores(scored: ScoredGroup) -> dict[str, Any]:
    """float32 values survive JSON: their shortest decimal form reads back to the same bits."""
    return {
        "lease": scored.group.lease_id,
        "exploit": scored.exploit_G.tolist(),
        "explore": scored.explore_G.tolist(),
        "bonus": scored.bonus_G.tolist(),
        "stage": scored.bonus_stage.value,
        "memory_version": scored.memory_version,
    }


def _scored(group: RolloutGroup, entry: _Scores) -> ScoredGroup:
    return replace(
        ScoredGroup.without_bonus(group),
        exploit_G=np.array(entry.exploit, np.float32),
        explore_G=np.array(entry.explore, np.float32),
        bonus_G=np.array(entry.bonus, np.float32),
        bonus_stage=BonusStage(entry.stage),
        memory_version=entry.memory_version,
    )
