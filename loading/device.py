"""Which device a process computes on: from its setting, from what torch can use, and from the cards that are there.

A machine with a card that torch cannot use (a driver that is too old, a build of torch for CPUs) is never taken for one
without: a run that trains on the CPU by mistake costs days before it is noticed. Loads without torch.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.errors import ConfigError

DEVICES, DRIVER = Path("/dev"), Path("/proc/driver/nvidia/version")
LEAST_DRIVER = {"12": 525, "13": 580}
"""By CUDA's major version (NVIDIA, CUDA Compatibility, minor version compatibility)."""


def cards(environment: Mapping[str, str] = os.environ, devices: Path = DEVICES) -> list[str]:
    """NVIDIA cards that this process is meant to use: the device files, or what CUDA_VISIBLE_DEVICES names of them.
    Where it is empty or -1 the cards are hidden on purpose: none."""
    found = sorted(path.name for path in devices.glob("nvidia[0-9]*"))
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None or not found:
        return found
    listed = [name.strip() for name in named.split(",")]
    ends = next((i for i, name in enumerate(listed) if name in ("", "-1")), len(listed))  # CUDA reads no further
    return listed[:ends]


def old_driver(built_for: str | None, there: Sequence[str], version: Path = DRIVER) -> str:
    """Why no process of this machine can use any of its cards: one sentence for all of them. Empty where the driver is new
    enough, or nothing is known of it."""
    least = LEAST_DRIVER.get((built_for or "").partition(".")[0])
    found = driver_version(version)
    if least is None or found is None or not there or int(found.partition(".")[0]) >= least:
        return ""
    return (
        f"the NVIDIA driver of this machine is {found}, and torch is built for CUDA {built_for}, which wants {least} or newer: "
        f"none of its {len(there)} card(s) ({', '.join(there)}) can be used. Update the driver"
    )


def driver_version(version: Path = DRIVER) -> str | None:
    """As the kernel module says it, "580.65.06" say."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", version.read_text().splitlines()[0])
    except (OSError, IndexError):
        return None
    return found[0] if found else None


def choose_device(setting: str, key: str, *, usable: bool, built_for: str | None, there: Sequence[str]) -> str:
    """Returns "cpu" or "cuda". setting: cpu | cuda | auto. key: its name, for the message. usable: torch sees a card.
    built_for: torch.version.cuda. there: `cards()`.

    Raises ConfigError where a card is asked for, or there, and cannot be used.
    """
    if setting == "cpu":
        return "cpu"
    if usable:
        return "cuda"
    if setting == "auto" and not there:
        return "cpu"
    asked = f"{key} = '{setting}'"
    found = f"{len(there)} NVIDIA card(s) ({', '.join(there)})" if there else "no NVIDIA card that it may use"
    raise ConfigError(
        f"{asked}: this process finds {found}, and torch can use none: torch is {_build(built_for)}, {_driver()}. "
        f"{_cure(built_for) if there else 'Give it a card, or'} set {key} to 'cpu' to compute on the CPU anyway"
    )


def _build(built_for: str | None) -> str:
    return f"built for CUDA {built_for}" if built_for else "a build for CPUs"


def _driver() -> str:
    try:
        return f"the driver says: {DRIVER.read_text().splitlines()[0].strip()}"
    except (OSError, IndexError):
        return "and no NVIDIA driver answers"


def _cure(built_for: str | None) -> str:
    if built_for is None:
        return "Install the extra `gpu`, or"
    least = LEAST_DRIVER.get(built_for.partition(".")[0])
    newer = f"{least} or newer" if least else f"one for CUDA {built_for}"
    return f"Update the driver to {newer}, or"
