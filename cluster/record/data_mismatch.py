"""Explains that a run's data, tokenizer or template is not what it was: what is recorded, what differs, and the ways out.

manifest (hashes, numbers of problems, commit) + what is there now + the ledger --> a sentence each. Looks, and changes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig
from cluster.config.run_folder import MANIFEST
from cluster.record.data_identity import HASHES, DataIdentity
from contracts.errors import DataError
from storage.bounded_json import parse_object, read_object
from storage.durable import whole_lines

SHOWN = 12
"""Characters of a hash: enough to tell two apart."""
MAX_NAMED = 3
_SIDES = {"train": "training", "held_out": "held-out"}


def why_not(
    run_path: Path, config: RunConfig, settings: Sequence[str], identity: Mapping[str, str], data: DataIdentity
) -> str:
    """Why the run cannot go on, and what to do; "" where it can. settings: a line for each that makes it another run."""
    manifest = read_object(run_path / MANIFEST)
    others = [data_sentence(run_path, config, manifest, identity, data), template_sentence(manifest, identity)]
    lines = [line for line in (*settings, *others) if line]
    if not lines:
        return ""
    what = " with other settings" if settings else ""
    ways = (
        "\nGive it the old ones, start another run with --set run.name=NAME, or, for settings (not for data, tokenizer and "
        "template), insist with --override"
    )
    return f"{run_path} cannot go on{what}:\n" + "\n".join(lines) + (ways if settings else "")


def data_sentence(
    run_path: Path, config: RunConfig, manifest: Mapping[str, Any], identity: Mapping[str, str], data: DataIdentity
) -> str:
    """Returns what differs from the data that the run was made with; "" where it is the same. identity: hashes of now."""
    others = [name for name in HASHES if name in identity and manifest.get(name) not in (None, identity[name])]
    if not others:
        return ""
    name = others[-1]  # data_hash covers more
    found = [*_sides(manifest.get("data"), data.facts), *_gone(run_path, data)]
    return (
        f"  the data has changed ({name}: recorded {_short(manifest[name])}, found {_short(identity[name])})"
        f"{': ' * bool(found)}{'; '.join(found)}.\n"
        f"    Now it is {_source(config)}. {_way_out(config)} No option accepts other data in a run. Where nothing was changed, "
        f"memr reads it otherwise than {_commit(manifest)}, which began the run and can go on with it"
    )


def template_sentence(manifest: Mapping[str, Any], identity: Mapping[str, str]) -> str:
    """Returns what differs in tokenizer and chat template; "" where they are the same."""
    name = "template_hash"
    if name not in identity or manifest.get(name) in (None, identity[name]):
        return ""
    return (
        f"  tokenizer or chat template has changed ({name}: recorded {_short(manifest[name])}, found {_short(identity[name])}).\n"
        f"    Restore the model's files as they were ({manifest.get('model_path', 'model.name')}); where nothing was changed, "
        f"{_commit(manifest)} began the run and can go on with it"
    )


def _sides(before: Any, now: Mapping[str, Any]) -> list[str]:
    """Runs of earlier commits wrote no numbers down."""
    if not isinstance(before, dict) or not now:
        return []
    told = []
    for name, word in _SIDES.items():
        then, there = before.get(name), now[name]
        if not isinstance(then, dict) or then.get("asked") != there.get("asked") or then.get("hash") == there["hash"]:
            continue
        were, are = then.get("problems"), there["problems"]
        told.append(
            f"{were} {word} problems were recorded, {are} are there"
            if were != are
            else f"of {are} {word} problems one or more are not what they were"
        )
    return told


def _gone(run_path: Path, data: DataIdentity) -> list[str]:
    """Problems that the run has issued and that are not there any more, the first ones by name."""
    if data.train_ids is None:
        return []
    gone = sorted(_issued(run_path) - data.train_ids)
    more = f" and {len(gone) - MAX_NAMED} more" if len(gone) > MAX_NAMED else ""
    return [f"not there any more, and asked in the run: {', '.join(gone[:MAX_NAMED])}{more}"] if gone else []


def _issued(run_path: Path) -> set[str]:
    try:
        lines = whole_lines((run_path / "ledger" / "events.jsonl").read_bytes())
        return {str(parse_object(line, "ledger")["problem_id"]) for line in lines if line.strip()}
    except (OSError, DataError, KeyError):  # told elsewhere; without it there is less to say
        return set()


def _source(config: RunConfig) -> str:
    task = config.task
    if task.kind != "file":
        return f"made by task.kind = '{task.kind}'"
    if task.hub_dataset:
        return f"task.hub_dataset = '{task.hub_dataset}'"
    held_out = f" and task.held_out_path = {task.held_out_path}" if task.held_out_path else ""
    return f"task.path = {task.path}{held_out}"


def _way_out(config: RunConfig) -> str:
    if config.task.kind == "file" and not config.task.hub_dataset:
        return (
            "Restore it as it was, or name a copy of it with --set task.path=FILE (where it lies is free), or start another "
            "run with --set run.name=NAME."
        )
    ours = {"arithmetic": "memr itself", "reasoning_gym": "the package reasoning-gym", "file": "the dataset"}
    return f"Restore {ours.get(config.task.kind, 'its code')} as it was, or start another run with --set run.name=NAME."


def _commit(manifest: Mapping[str, Any]) -> str:
    commit = manifest.get("git_commit")
    return f"commit {commit[:SHOWN]}" if isinstance(commit, str) else "the memr of that time (no commit is recorded)"


def _short(digest: Any) -> str:
    """Of a hash that names a number of problems ("200:...") that too."""
    number, colon, rest = str(digest).rpartition(":")
    return f"{number}{colon}{rest[:SHOWN]}"
