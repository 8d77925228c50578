"""Resuming a run: which run directory may go on, and how its services become what they were.

 RUN/checkpoints (newest that matches its manifest) + RUN/log (what came after) -> RecoveredState -> restore.py

A crash costs the optimiser steps since the checkpoint, which are replayed from the log; no rollout is sampled again.
"""

import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.config.paths import CODE, CODE_IN_LISTS, DATA
from cluster.config.run_config import RunConfig, load_config
from cluster.config.run_folder import MANIFEST, is_run
from cluster.handles import Services
from cluster.record.checkpoint import log_floor, read_checkpoint
from cluster.record.data_identity import DataIdentity
from cluster.record.data_mismatch import why_not
from cluster.record.events.resuming import CheckpointPassedOver, Resumed, SettingsChanged
from cluster.record.history import RecoveredState, largest_gap, read_recovered
from cluster.record.incidents import append_event
from cluster.record.num_updates import NUM_UPDATES, updates_made, why_refused
from cluster.record.recorder import Recorder
from cluster.record.run_dir import create_run, has_begun, refuse_live_run, renew_run, write_config
from cluster.record.run_view import read_run
from contracts.adapter import Adapter
from contracts.errors import ConfigError
from contracts.ports import Tokenizer
from contracts.rollout import ScoredGroup
from loading.dotted_path import short_name
from storage.bounded_json import Count, Stored, read_fields, read_object
from tasks.answer_rule import ANSWER_RULE
from tasks.prompts import HfTokenizer

NO_DATA = DataIdentity()
MAY_CHANGE = frozenset(
    {
        "actors.num_workers",
        "actors.torch_threads",
        "actors.lease_deadline_s",
        "learner.mismatch_stop",
        "learner.torch_threads",
        "learner.micro_batch_tokens",
        "learner.logprob_chunk_tokens",
        "learner.gpus",
        "actors.gpus_per_worker",
        "actors.vllm.gpu_memory_utilization",
        "actors.vllm.kv_cache_bytes",
        "memory.gpus",
        "memory.torch_threads",
        "memory.deadline_s",
        "eval.every_updates",
    }
)
"""Beside everything in [cluster] but groups_per_batch: what leaves the run the same run, to rounding: memory
that is missing on a card may be spared. learner.num_updates may grow."""
_OF_GSPO = ("learner.clip_low", "learner.clip_high", "learner.loss_normalisation")
_OF_PROFILE = ("memory.profile", "memory.exploit_weight", "memory.explore_weight")
"""The default profile was "memr" up to commit be586f9 and is "remember" since, which differs by the weights alone."""
_OLDER_DEFAULT = "another default up to commit be586f9; `memr resume` goes on with the run's own"
PLACE = frozenset({"run.directory", "run.name"})
"""Where a run lies: it may be moved, renamed and copied, and what its config.toml says of the place is where it began."""
SECTIONS_THAT_MAY_CHANGE = frozenset({"supervision", "alarms", "resources", "notify"})


@dataclass(frozen=True, slots=True)
class ChangedSetting:
    """A setting that is not what it was."""

    name: str
    before: Any
    now: Any

    why: str = ""

    @property
    def grows(self) -> bool:
        """More updates than were asked for before."""
        return self.name == NUM_UPDATES and self.now > self.before

    def undoes(self, run_path: Path) -> bool:
        """Fewer updates than were made: nothing makes them unmade."""
        return self.name == NUM_UPDATES and self.now < updates_made(run_path)

    @property
    def moved(self) -> bool:
        """The user's files lie elsewhere. That the data is the same says its hash; of code the file has to have its name."""
        if key := CODE_IN_LISTS.get(self.name):
            return _with_short_names(self.before, key) == _with_short_names(self.now, key)
        if not isinstance(self.before, str) or not isinstance(self.now, str):
            return False
        return self.name in DATA or (self.name in CODE and short_name(self.before) == short_name(self.now))

    @property
    def allowed(self) -> bool:
        in_cluster = self.name.startswith("cluster.") and self.name != "cluster.groups_per_batch"
        return (
            in_cluster
            or self.name.split(".")[0] in SECTIONS_THAT_MAY_CHANGE
            or self.name in PLACE
            or self.name in MAY_CHANGE
            or self.moved
            or (self.grows and not self.why)
        )

    def __str__(self) -> str:
        return f"  {self.name}: was {self.before!r}, is {self.now!r}{self.why and f' ({self.why})'}"


def _with_short_names(entries: Any, key: str) -> list[dict[str, Any]]:
    return [entry | {key: short_name(entry[key])} if entry.get(key) else entry for entry in entries]


class _SnapshotVersion(Stored):
    memory_version: Count


def begin_or_go_on(
    config: RunConfig,
    tokenizer: Tokenizer,
    identity: Mapping[str, str],
    model_path: str,
    *,
    override: bool,
    data: DataIdentity = NO_DATA,
) -> list[ChangedSetting]:
    """A run directory with these settings: a new one, one whose first start was refused, or, with what its settings were
    not before, one that goes on. Raises ConfigError where it cannot."""
    path = config.run_path
    config.learner.refuse_cut_cap()
    config.actors.refuse_group_of_one()
    if is_run(path):
        refuse_live_run(path)
        refuse_profile_by_name(load_config(path / "config.toml"), config)
    if is_run(path) and has_begun(path):
        refuse_other_prompts(path, tokenizer)
        return check_same_run(path, config, identity, override=override, data=data)
    begin = renew_run if is_run(path) else create_run
    details = {**identity, "data": data.facts, "model_path": model_path, "seed": config.run.seed}
    begin(config, details | {"answer_rule": ANSWER_RULE})
    return []


def check_same_run(
    run_path: Path, config: RunConfig, identity: Mapping[str, str], *, override: bool, data: DataIdentity = NO_DATA
) -> list[ChangedSetting]:
    """The settings that are others than before and are taken, but where the run lies. Raises ConfigError with every
    difference that would make it another run. identity: hashes of data and template; data: what there is to say of it."""
    taken = changed_settings(run_path, config)
    hard = [str(d) for d in taken if not d.allowed and (not override or d.undoes(run_path))]
    if why := why_not(run_path, config, hard, identity, data):
        raise ConfigError(why)
    return [d for d in taken if d.name not in PLACE]


def refuse_profile_by_name(before: RunConfig, now: RunConfig) -> None:
    """Raises ConfigError where memory.profile alone is another: --override takes what is given, and this gives nothing."""
    if kept := now.memory.kept_of(before.memory):
        profile = now.memory.profile
        raise ConfigError(
            f"memory.profile = '{profile}' would be a name only: the run's config.toml names every setting, so "
            f"{', '.join(kept)} would stay as profile '{before.memory.profile}' has them. Start another run with --set "
            f"memory.profile={profile} --set run.name=NAME, or `memr resume` this one without it"
        )


def refuse_other_prompts(run_path: Path, tokenizer: Tokenizer) -> None:
    """Raises ConfigError for a run of an earlier commit, which rendered this chat template as it is."""
    if not isinstance(tokenizer, HfTokenizer) or tokenizer.plain_fingerprint == tokenizer.fingerprint:
        return
    manifest = read_object(run_path / MANIFEST)
    if manifest.get("template_hash") == tokenizer.plain_fingerprint:
        raise ConfigError(
            f"{run_path} was begun by commit {manifest.get('git_commit') or 'unknown'} of memr, which rendered its model's "
            f"chat template as it is. Now {'; '.join(tokenizer.notes)}. That commit can go on with the run; with this one start "
            "another: --set run.name=NAME"
        )


def changed_settings(run_path: Path, config: RunConfig) -> list[ChangedSetting]:
    """Against config.toml of the run."""
    before = load_config(run_path / "config.toml")
    found = _differences("", before.model_dump(mode="json"), config.model_dump(mode="json"))
    return [
        replace(
            d,
            why=why_refused(run_path, before, config)
            if d.name == NUM_UPDATES
            else _older_default(before, config, d.name),
        )
        for d in found
    ]


def _older_default(before: RunConfig, now: RunConfig, name: str) -> str:
    """Empty where the default is what it was at commit be586f9."""
    of_gspo = before.learner.loss == "gspo" and name in _OF_GSPO
    of_profile = (before.memory.profile, now.memory.profile) == ("memr", "remember") and name in _OF_PROFILE
    return _OLDER_DEFAULT if of_gspo or of_profile or name == "learner.kl_estimator" else ""


def _of_be586f9(run_path: Path) -> bool:
    """Whether this commit or one before wrote the run's settings, every one of them: there was no kl_estimator yet."""
    stored = tomllib.loads((run_path / "config.toml").read_text("utf-8-sig"))
    return "kl_estimator" not in stored.get("learner", {})


def record_changes(run_path: Path, config: RunConfig, changes: Sequence[ChangedSetting]) -> None:
    """From here on the run has these settings: config.toml, and an event that tells each one's before and now. Name and
    directory stay: they say where the run was begun. For a run that was resumed with them: what cannot be is not kept."""
    if not changes:
        return
    before = load_config(run_path / "config.toml")
    place = {"name": before.run.name, "directory": before.run.directory}
    write_config(run_path, config.model_copy(update={"run": config.run.model_copy(update=place)}))
    told = {d.name: {"before": d.before, "now": d.now} for d in changes}
    append_event(run_path, SettingsChanged(told).at(time.time()))


def nothing_left(run_path: Path, config: RunConfig) -> bool:
    """Whether the run has finished and has made the updates that are asked for now. Raises ConfigError where other
    settings are asked for too, which could change nothing any more; a default that became another is not asked for."""
    done = read_run(run_path) if (run_path / "summary.json").exists() else None
    if done is None or not done.finished or done.summary is None:
        return False
    made = int(done.summary["updates"])
    changes = [d for d in changed_settings(run_path, config) if d.name not in PLACE and not d.moved]
    if config.learner.num_updates > made:
        return False
    if all(d.why == _OLDER_DEFAULT for d in changes) and (not changes or _of_be586f9(run_path)):
        return True
    raise ConfigError(
        f"{run_path} has made all of its {made} updates, so these settings would change nothing:\n"
        + "\n".join(map(str, changes))
        + f"\nFor more updates ask for more than {made} with --set learner.num_updates=N; for another run choose another "
        "name with --set run.name=NAME"
    )


def read_recovered_run(run_path: Path, config: RunConfig) -> RecoveredState:
    """Everything an earlier process left. Raises DataError for a damaged log."""
    past, position = read_checkpoint(run_path)
    floor = log_floor(run_path)
    return read_recovered(run_path / "log", past, position, memory_on=config.memory.enabled, floor=floor)


async def restore_services(past: RecoveredState, services: Services, recorder: Recorder) -> Adapter:
    """Learner and memory as they were; returns the learner's adapter. Memory is told again what came after its
    snapshot, and an event says by how much its answers differ from the first time (0 expected on the same machine)."""
    for note in past.notes:
        recorder.event(CheckpointPassedOver(note))
    if past.checkpoint is not None:
        await services.learner.restore(past.checkpoint / "learner")
        if past.memory_snapshot is not None and services.memory is not None:
            await services.memory.restore(past.memory_snapshot)
    if past.begun:
        differences = await _tell_memory_again(past, services)
        worst, kept = max(differences, default=0.0), len(past.buffered) + len(past.sampled)
        recorder.event(Resumed(past.step, len(past.batches), len(differences), worst, groups_taken_up=kept))
    return await services.learner.first_adapter()


async def _tell_memory_again(past: RecoveredState, services: Services) -> list[float]:
    """Call by call, what came after the snapshot; how far each answer is from the first one."""
    if services.memory is None:
        return []
    differences = []
    for call in calls_after(past):
        again, _ = await services.memory.score([scored.group for scored in call])
        differences.append(max(largest_gap(first, second) for first, second in zip(call, again, strict=True)))
    return differences


def calls_after(past: RecoveredState) -> list[tuple[ScoredGroup, ...]]:
    """Memory's calls that its snapshot does not hold yet, in their order."""
    known = _snapshot_version(past.memory_snapshot)
    return [call for call in past.calls if call and call[-1].memory_version >= known]


def _snapshot_version(snapshot: Path | None) -> int:
    if snapshot is None:
        return 0
    return read_fields(snapshot / "manifest.json", _SnapshotVersion).memory_version


def _differences(prefix: str, before: Any, now: Any) -> list[ChangedSetting]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return [d for n in names for d in _differences(f"{prefix}.{n}".lstrip("."), before.get(n), now.get(n))]
    return [] if before == now else [ChangedSetting(prefix, before, now)]
