"""A user's folders with the names of memr's packages stand behind memr's own, in every process."""

import subprocess
import sys
from pathlib import Path

import pytest

from loading.own_packages import PACKAGES, ROOT, own_first


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("as_file", [True, False])
def test_what_hides_a_package_of_ours_goes_behind_it(tmp_path: Path, name: str, as_file: bool) -> None:
    theirs, plain = tmp_path / "theirs", tmp_path / "plain"
    theirs.mkdir()
    plain.mkdir()
    if as_file:
        (theirs / f"{name}.py").write_text("")
    else:
        (theirs / name).mkdir()
    ordered = own_first([str(theirs), "/usr/lib/python3", str(plain)])
    assert ordered[:4] == ["/usr/lib/python3", str(plain), str(ROOT), str(theirs)]


def test_the_working_directory_stands_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_first(["", "/a", str(ROOT), "/b"]) == ["/a", "/b", str(ROOT), str(tmp_path)]


@pytest.mark.parametrize("name", ["tasks", "actors", "contracts"])
def test_the_command_line_works_in_a_folder_with_packages_of_the_same_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    config = ROOT / "configs" / "scripted.toml"
    command = [sys.executable, "-m", "cluster", "plan", str(config)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
