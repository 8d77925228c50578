"""`memr doctor`: is this machine fit to run? Facts first, then what is missing and how to get it."""

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from cluster.model_store import PACKAGED_MODEL, cache_path

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "faiss-cpu",
    "sentence-transformers",
    "pyarrow",
    "math-verify",
    "reasoning-gym",
)
_MIN_MEMORY_BYTES = 6 * 2**30
_MIN_SHM_BYTES = 300 * 2**20
_MIN_DISK_BYTES = 5 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. ok None: neither good nor bad."""

    name: str
    value: str
    ok: bool | None
    fix: str = ""


def examine() -> list[Finding]:
    return [*_packages(), *_machine(), _gpu(), *_models()]


def show(console: Console, findings: list[Finding]) -> bool:
    """True if nothing is wrong."""
    table = Table.grid(padding=(0, 2))
    marks = {True: "[green]ok[/green]", False: "[red]no[/red]", None: "[dim]-[/dim]"}
    for finding in findings:
        table.add_row(marks[finding.ok], finding.name, finding.value, finding.fix if finding.ok is False else "")
    console.print(table)
    return all(finding.ok is not False for finding in findings)


def _packages() -> list[Finding]:
    findings = []
    for name in _PACKAGES:
        try:
            findings.append(Finding(name, version(name), True))
        except PackageNotFoundError:
            findings.append(Finding(name, "missing", False, "run `make setup`"))
    return findings


def _machine() -> list[Finding]:
    memory = psutil.virtual_memory().available
    disk = shutil.disk_usage(Path.cwd()).free
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else None
    return [
        Finding("cores", str(os.cpu_count()), None),
        Finding(
            "free memory",
            f"{memory / 2**30:.1f} GiB",
            memory > _MIN_MEMORY_BYTES,
            "close programs, or use a smaller model",
        ),
        Finding(
            "free disk here", f"{disk / 2**30:.1f} GiB", disk > _MIN_DISK_BYTES, "set run.directory to a larger disk"
        ),
        Finding(
            "shared memory",
            "not there" if shm is None else f"{shm / 2**20:.0f} MiB",
            None if shm is None else shm > _MIN_SHM_BYTES,
            "in a container: start it with --shm-size=1g; or lower cluster.object_store_bytes",
        ),
    ]


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "none: everything runs on the CPU", None)
    return Finding("GPU", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), True)


def _models() -> list[Finding]:
    unpacked = (cache_path() / "models" / PACKAGED_MODEL / "config.json").exists()
    return [
        Finding(
            f"model {PACKAGED_MODEL}",
            "unpacked" if unpacked else "unpacked at the first run (about half a minute)",
            None,
        )
    ]
