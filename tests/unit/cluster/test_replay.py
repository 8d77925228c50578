"""`memr replay` compares what is there, and says so where nothing is."""

import shutil
from pathlib import Path

import pytest

from cluster.commands.replay import replay_run
from contracts.errors import DataError
from tests.unit.cluster.test_recorder import finished


async def test_a_run_whose_log_is_gone_is_refused_and_not_called_equal(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    shutil.rmtree(path / "log")
    with pytest.raises(DataError, match=r"has no group that memory scored, and metrics\.jsonl has 2 updates"):
        replay_run(path)
