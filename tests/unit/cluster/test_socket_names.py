"""Folders that Ray cannot use, for their names' length or at all, are refused with their own names, before Ray starts."""

import errno

import pytest

from cluster.config.run_config import RunConfig
from cluster.launch.ray_session import MAX_SOCKET_BYTES, ray_session
from contracts.errors import ConfigError


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("folder", ["/tmp/" + "d" * MAX_SOCKET_BYTES, "/tmp/" + "é" * 40])
def test_a_long_folder_for_temporary_files_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, folder)
    with (
        pytest.raises(ConfigError, match=rf"{folder} \(TMPDIR.*Unix sockets.*107 at most"),
        ray_session(RunConfig.model_validate({"resources": {"enabled": False}})),
    ):
        pass


@pytest.mark.parametrize(
    "error",
    [
        NotADirectoryError(errno.ENOTDIR, "Not a directory", "/f/ray"),  # TMPDIR is a file
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/f"),  # HOME=/proc/nope
        OSError(errno.EROFS, "Read-only file system", "/f/.ray"),
    ],
)
def test_a_folder_that_ray_cannot_write_is_named_and_no_memory_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A read-only home, as in many containers: the advice was to look at free memory and /dev/shm."""

    def refuses(**_: object) -> None:
        raise error

    monkeypatch.setattr("cluster.launch.ray_session.ray.init", refuses)
    with (
        pytest.raises(ConfigError, match=rf"Ray cannot write /f.*: {error.strerror}\. .*TMPDIR.*HOME"),
        ray_session(RunConfig.model_validate({"resources": {"enabled": False}})),
    ):
        pass
