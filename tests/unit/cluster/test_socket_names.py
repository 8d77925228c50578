"""A folder for temporary files whose name leaves Ray's sockets no room is refused with its own name, before Ray starts."""

import pytest

from cluster.config import RunConfig
from cluster.ray_session import MAX_SOCKET_BYTES, ray_session
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
