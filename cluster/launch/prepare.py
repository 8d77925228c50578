"""Prepares a run before anything is started: checks problems, model files and prompts, and claims the run directory.

load the task -> model's files, tokenizer -> look through the data -> identity -> run directory -> what is on disk of it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.load import load_worker_tokenizer
from cluster.config.run_config import RunConfig
from cluster.launch.answer_rule_change import tell_changed_rule
from cluster.launch.context_budget import find_room
from cluster.launch.model_store import model_of
from cluster.launch.named_methods import refuse_missing_methods
from cluster.launch.nodes import check_driver
from cluster.launch.probes import probe_sequences
from cluster.launch.ray_handles import ServiceInputs
from cluster.record.data_identity import DataIdentity, data_identity
from cluster.record.history import RecoveredState
from cluster.record.legacy_numbers import tell_reading
from cluster.record.process_log import CONTROLLER_LOG, log_to_file, new_attempt, newest_attempt
from cluster.record.resume import ChangedSetting, begin_or_go_on, read_recovered_run, record_changes
from cluster.record.run_dir import claim_run, forget_summary, has_begun
from contracts.errors import LoadError
from contracts.ports import Task
from learner.old_checkpoint import refuse_old
from loading.load_errors import named_data
from tasks.load import load_task, make_verifier
from tasks.prompts import HfTokenizer
from tasks.task_data import TaskData, look_through

MAX_FAULTS_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A run that may start. past: what an earlier process of it left. changes: of its settings since then. logs: folder of
    this life's process logs."""

    config: RunConfig
    task: Task
    inputs: ServiceInputs
    past: RecoveredState
    changes: Sequence[ChangedSetting]
    logs: Path | None

    def begin_life(self) -> None:
        """Writes down changed settings and forgets the summary. Not before the run was restored: a start that fails leaves
        both as they were."""
        record_changes(self.config.run_path, self.config, self.changes)
        forget_summary(self.config.run_path)


def prepare(
    config: RunConfig, address: str | None, say: Callable[[str], None], *, override: bool, supervisor: int | None
) -> Prepared:
    """Raises MemrError with a message for the user; then nothing was started."""
    task = _load_task(config)
    check_driver(config, address)
    say("loading the model's files and the tokenizer")
    model_path = model_of(config)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    for note in tokenizer.notes if isinstance(tokenizer, HfTokenizer) else ():
        say(note)
    run_path = config.run_path
    data = look_through(task, config.eval.problems)
    with named_data():
        prompts = data.check_prompts(tokenizer, config.task.max_prompt_tokens)
    room = find_room(config, tokenizer, model_path, prompts.max, say if has_begun(run_path) else None)
    inputs = ServiceInputs(model_path, tokenizer.fingerprint, probe_sequences(config, task, tokenizer), room)
    found = data_identity(run_path, task, data, config.task)
    _refuse_faults(run_path, data)
    for note in (data.counts, *data.notes, *prompts.notes):
        say(note)
    identity = {"template_hash": inputs.template_hash, **found.hashes}
    changes = begin_or_go_on(config, tokenizer, identity, model_path, override=override, data=found)
    past = _past(config, found, say)
    claim_run(run_path, supervisor)
    return Prepared(config, task, inputs, past, changes, _log_folder(config, supervisor))


def _load_task(config: RunConfig) -> Task:
    """First: a wrong path is told before anything is loaded."""
    refuse_missing_methods(config)
    task = load_task(config.task)
    if not has_begun(config.run_path):  # one that has loaded it before tries again, within its budget
        make_verifier(config.task).close()  # users' scorer and rewards, loaded as every worker will
    return task


def _refuse_faults(run_path: Path, data: TaskData) -> None:
    if data.faults and not has_begun(run_path):
        raise LoadError("\n".join(data.faults[:MAX_FAULTS_SHOWN]))


def _past(config: RunConfig, found: DataIdentity, say: Callable[[str], None]) -> RecoveredState:
    run_path = config.run_path
    past = read_recovered_run(run_path, config) if has_begun(run_path) else RecoveredState()
    if past.checkpoint is not None:
        refuse_old(past.checkpoint / "learner")
    if past.begun:
        say(f"resuming {run_path} after update {past.step + len(past.batches)}")
        for note in (tell_changed_rule(run_path, config), tell_reading(run_path, found.reading)):
            if note:
                say(note)
    return past


def _log_folder(config: RunConfig, supervisor: int | None) -> Path | None:
    """Of this life; the supervisor has made it where there is one."""
    logs = newest_attempt(config.run_path) if supervisor else new_attempt(config.run_path)
    if logs is not None:
        log_to_file(logs / CONTROLLER_LOG, config.cluster.log_level)
    return logs
