"""A start that is refused: one sentence, exit code 2, no second try, and another try with other settings goes through."""

from pathlib import Path

import pytest

from cluster.record.incidents import headlines
from tests.integration.test_scripted_run import SCRIPTED, memr, sets


def test_what_memory_cannot_load_is_told_once_and_may_be_mended(tmp_path: Path) -> None:
    refused = memr("train", str(SCRIPTED), *sets(tmp_path, "mended", "memory.encoder=./nowhere"))
    told = refused.stdout + refused.stderr
    assert refused.returncode == 2, told
    assert "nowhere' cannot be loaded" in refused.stderr
    assert "Traceback" not in told
    assert "Taking the run up again" not in told
    assert "memr resume" not in told
    assert [line for line in headlines(tmp_path / "mended") if "memory.encoder" in line]
    assert "failed: memory.encoder" in memr("status", str(tmp_path / "mended")).stdout
    mended = memr("train", str(SCRIPTED), *sets(tmp_path, "mended", "memory.encoder=hash:32"))
    assert mended.returncode == 0, mended.stdout + mended.stderr
    again = memr("train", str(SCRIPTED), *sets(tmp_path, "mended", "memory.encoder=hash:64", "learner.num_updates=7"))
    assert again.returncode == 2, "a run that has begun keeps its settings"
    assert "memory.encoder: was 'hash:32', is 'hash:64'" in again.stderr


@pytest.mark.parametrize("package", ["pyarrow", "faiss"])
def test_a_package_that_cannot_be_imported_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"{package}.py").write_text(
        "raise ImportError('libthing.so.3: cannot open shared object')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"), prepend=":")
    refused = memr("train", str(SCRIPTED), *sets(tmp_path, "missing", "memory.encoder=hash:32"))
    told = refused.stdout + refused.stderr
    assert refused.returncode == 2, told
    assert "libthing.so.3" in refused.stderr
    assert "Traceback" not in told
    assert "Taking the run up again" not in told
