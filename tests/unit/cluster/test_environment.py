"""`[cluster.env]` holds for every command that loads a model, an encoder or users' code, not for a run's processes alone."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.drive import drive
from cluster.run_dir import create_run
from tests.unit.cluster.test_controller import Run, make_config


async def finished_run(path: Path, **sections: Any) -> Path:
    """With a checkpoint, for what looks into memory."""
    config = make_config(path, updates=2, **sections)
    create_run(config, {"model_path": "scripted"})
    run = Run(config)
    await drive(run.controller, run.recorder, lambda: None)
    run.close()
    return config.run_path


COMMANDS = [
    "check-task {run}/config.toml",
    "eval {run} --problems 1",
    "eval ./no-such-model --config {run}/config.toml --set actors.engine=transformers",
    "export {run} {out}",
    "memory query {run} text",
    "memory inspect {run}",
    "replay {run}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_environment_of_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Some of them end in an error after that: there is no model here."""
    monkeypatch.setenv("MEMR_TEST_VARIABLE", "of the shell")
    run = asyncio.run(finished_run(tmp_path, cluster={"env": {"MEMR_TEST_VARIABLE": "of the configuration"}}))
    CliRunner().invoke(app, command.format(run=run, out=tmp_path / "out").split())
    assert os.environ["MEMR_TEST_VARIABLE"] == "of the configuration"
