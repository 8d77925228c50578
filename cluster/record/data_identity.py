"""Whether a run's data is what it was: hashes of everything that it trains on and is measured by, for its manifest.

task + what was looked through already + the manifest -> DataIdentity (task_hash, data_hash, facts for people)

Nothing is made twice for them, but where a run that an earlier commit began may have read the same file otherwise.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.config.run_folder import MANIFEST, is_run
from cluster.record.legacy_numbers import known_reading
from contracts.ports import Task
from storage.bounded_json import read_object
from tasks.config import TaskSettings
from tasks.task_data import TaskData, data_hash, look_through, part_facts

HASHED_PROBLEMS = 256
HASHES = ("task_hash", "data_hash")


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """hashes: task_hash is what runs of earlier commits know of their data; data_hash is as the run counted, where there is
    one. facts: numbers and hashes of each side, by which a difference is told. train_ids: of all training problems, None
    where there is no end of them. reading: how an earlier commit read the file, in words, where that is another way."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    train_ids: frozenset[str] | None = None
    reading: str = ""


def data_identity(run_path: Path, task: Task, data: TaskData, settings: TaskSettings) -> DataIdentity:
    """Raises what the task raises where more held-out problems than were looked through are needed."""
    manifest = read_object(run_path / MANIFEST) if is_run(run_path) else {}
    known = {name: manifest[name] for name in HASHES if isinstance(manifest.get(name), str)}
    hashes = _hashes(task, data, known.get("data_hash"))
    ids = None if data.num_train is None else frozenset(problem.problem_id for problem in data.train)
    found = DataIdentity(hashes, part_facts(data), ids)
    if not known or all(hashes[name] == value for name, value in known.items()):
        return found

    def of(older: Task) -> dict[str, str]:
        return _hashes(older, look_through(older, data.num_held_out_asked), known.get("data_hash"))

    reading = known_reading(settings, known, of)
    return replace(found, hashes=hashes | known, reading=reading) if reading else found


def _hashes(task: Task, data: TaskData, like: str | None) -> dict[str, str]:
    return {"task_hash": task_hash(task, data), "data_hash": data_hash(task, data, like)}


def task_hash(task: Task, data: TaskData) -> str:
    """Of the first problems: another data file or generator shows. `data_hash` covers all of it."""
    digest = hashlib.sha256(str(task.num_train).encode())
    for problem in data.train[:HASHED_PROBLEMS]:
        digest.update(f"{problem.problem_id}\0{problem.question}\0{problem.answer}\0".encode())
    return digest.hexdigest()
