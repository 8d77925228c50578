"""Whether the parts of a checkpoint tell of one moment: step, learner, ledger, waiting groups, memory.

Each file may be what checkpoint.json says of it and the whole still be no place to go on from: a learner one update
ahead of the books, a lease that is booked as buffered and whose group is nowhere. Cheap: of tensor files the header alone is
read (checkpoint.json has their hash), of groups the lease ids.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open

from cluster.record.ledger import STATUSES, LeaseStatus, LedgerSnapshot
from contracts.errors import DataError
from storage.arrow import NULLABLE, SCORED_GROUP_SCHEMA, groups_from_table
from storage.bounded_json import Count, Stored, read_fields
from storage.bounded_tables import iterate_parquet


class _Learner(Stored):
    policy_version: Count
    tensors_hash: str = ""


class _Snapshot(Stored):
    memory_version: Count
    sha256: dict[str, str] = Field({})


def check_agree(
    folder: Path,
    step: int,
    sha256: Mapping[str, str],
    books: LedgerSnapshot,
    buffered: Collection[int],
    sampled: Collection[int],
) -> None:
    """sha256: of the files, as checkpoint.json has them. Raises DataError for parts that tell of different moments."""
    _check_learner(folder / "learner", step, sha256)
    _check_books(folder, step, books, buffered, sampled)
    _check_memory(folder, sha256)


def _check_learner(folder: Path, step: int, sha256: Mapping[str, str]) -> None:
    manifests = sorted(folder.glob("*.json"))
    if len(manifests) != 1:
        raise DataError(f"{folder} holds {len(manifests)} manifests (*.json) of a learner instead of one")
    learner = read_fields(manifests[0], _Learner)
    if learner.policy_version != step:
        raise DataError(
            f"{manifests[0]} is of a learner at version {learner.policy_version}, the checkpoint of step {step}"
        )
    for path in folder.glob("*.safetensors"):
        check_tensors(path)
        if learner.tensors_hash not in ("", sha256.get(f"learner/{path.name}", "")):
            raise DataError(f"{path} is not the file that {manifests[0].name} was written for")


def _check_books(
    folder: Path, step: int, books: LedgerSnapshot, buffered: Collection[int], sampled: Collection[int]
) -> None:
    for fate, held, name in ((LeaseStatus.BUFFERED, buffered, "buffered"), (LeaseStatus.IN_FLIGHT, sampled, "sampled")):
        booked = set(np.flatnonzero(books.fates_N == STATUSES.index(fate)).tolist())
        if stray := set(held) - booked:
            raise DataError(f"{folder / name}.parquet holds lease {min(stray)}, which the ledger has not as {fate}")
        if fate is LeaseStatus.BUFFERED and (missing := booked - set(held)):
            raise DataError(
                f"the ledger has {len(missing)} leases as buffered, lease {min(missing)} first, and {folder / name}.parquet "
                "has not their groups"
            )
    if len(books) and int(books.into_N.max()) > step:
        raise DataError(
            f"the ledger has leases trained into version {books.into_N.max()}, the checkpoint is of step {step}"
        )


def _check_memory(folder: Path, sha256: Mapping[str, str]) -> None:
    for snapshot in (folder / "memory").glob("snapshot-*"):
        manifest = read_fields(snapshot / "manifest.json", _Snapshot)
        for name, digest in manifest.sha256.items():
            if sha256.get((snapshot / name).relative_to(folder).as_posix()) != digest:
                raise DataError(f"{snapshot / name} is not the file that the snapshot's manifest names")
        for path in snapshot.glob("*.safetensors"):
            check_tensors(path)


def check_tensors(path: Path) -> None:
    """Raises DataError where the header is none, or tells of another length than the file has."""
    try:
        with safe_open(path, framework="numpy"):
            return
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} is no file of tensors: {error}") from error


def lease_ids(path: Path) -> set[int]:
    """Of the groups in a file, which is read in that one column. Raises DataError if there is none."""
    tables = iterate_parquet(path, SCORED_GROUP_SCHEMA, NULLABLE, columns=["lease_id"])
    return {lease_id for table in tables for lease_id in table["lease_id"].to_pylist()}


def read_through(path: Path) -> None:
    """Every row as resume would read it, a few at a time. Raises DataError for one that it could not."""
    for table in iterate_parquet(path, SCORED_GROUP_SCHEMA, NULLABLE):
        groups_from_table(table)
