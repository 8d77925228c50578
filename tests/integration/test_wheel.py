"""memr as a wheel, away from its checkout: every module is in it, and a command runs from it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tree import PACKAGES, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves folders beside what it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        os.symlink(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    return next(out.glob("memr-*.whl"))


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_has_every_module_and_template(wheel: Path) -> None:
    files = [p for name in PACKAGES for p in (ROOT / name).rglob("*") if p.suffix in {".py", ".j2"}]
    assert {str(path.relative_to(ROOT)) for path in files} - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_a_command_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip("install", "--no-deps", "--quiet", "--target", str(target), str(wheel))
    where = "import cluster.commands.cli, runpy, sys; print(cluster.commands.cli.__file__); "
    plan = f"sys.argv = ['memr', 'plan', {str(ROOT / 'configs/quickstart.toml')!r}]; runpy.run_module('cluster', run_name='__main__')"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(target)}
    command = [sys.executable, "-c", where + plan]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(str(target))
    assert "one update" in done.stdout
