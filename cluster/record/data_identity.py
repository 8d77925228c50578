"""Whether a run's data is what it was: hashes of everything that it trains on and is measured by, for its manifest.

task + what was looked through already + the manifest -> task_hash, data_hash. Nothing is made twice for them.
"""

import hashlib
from pathlib import Path

from cluster.config.run_folder import MANIFEST, is_run
from contracts.ports import Task
from storage.bounded_json import read_object
from tasks.task_data import TaskData, data_hash

HASHED_PROBLEMS = 256


def data_identity(run_path: Path, task: Task, data: TaskData) -> dict[str, str]:
    """task_hash: what runs of earlier commits know of their data. data_hash: as the run at run_path counted, where there
    is one."""
    known = read_object(run_path / MANIFEST).get("data_hash") if is_run(run_path) else None
    like = known if isinstance(known, str) else None
    return {"task_hash": task_hash(task, data), "data_hash": data_hash(task, data, like)}


def task_hash(task: Task, data: TaskData) -> str:
    """Of the first problems: another data file or generator shows. `data_hash` covers all of it."""
    digest = hashlib.sha256(str(task.num_train).encode())
    for problem in data.train[:HASHED_PROBLEMS]:
        digest.update(f"{problem.problem_id}\0{problem.question}\0{problem.answer}\0".encode())
    return digest.hexdigest()
