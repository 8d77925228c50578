"""The environment of commands and of a run's processes: `[cluster.env]` holds for every command that loads a model, an
encoder or users' code, not for a run's processes alone; what a user has set stays."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.commands.cli import app
from cluster.flow.drive import drive
from cluster.launch.environment import apply_environment, prepare_environment
from cluster.launch.process_env import actor_environment, thread_environment
from cluster.record.run_dir import create_run
from tests.harness import Run, make_config


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


WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
BUSY = {**WAITING, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of this process, for a test that changes it: without what memr sets."""
    mine = {"HOME": "/home/me"}
    monkeypatch.setattr(os, "environ", mine)
    return mine


def test_threads_of_commands_and_of_a_runs_processes_wait_without_spinning_and_are_not_bound(
    shell: dict[str, str],
) -> None:
    prepare_environment(["eval", "runs/quickstart"])
    assert shell.items() >= BUSY.items()
    assert actor_environment(shell, {}, "info").items() >= (BUSY | {"RAY_worker_niceness": "0"}).items()
    assert actor_environment({}, {}, "info").items() >= WAITING.items(), "of a run that no command started"
    assert not WAITING.keys() & thread_environment(2).keys()


@pytest.mark.parametrize("name", [*BUSY, "RAY_worker_niceness"])
def test_what_the_user_has_set_in_the_shell_stays_and_cluster_env_wins(shell: dict[str, str], name: str) -> None:
    shell[name] = "7"
    prepare_environment(["train", "configs/quickstart.toml"])
    assert shell[name] == "7"
    assert actor_environment(shell, {}, "info")[name] == "7"
    assert actor_environment(shell, {name: "8"}, "info")[name] == "8"


def test_a_policy_of_waiting_that_the_user_names_is_not_overruled(shell: dict[str, str]) -> None:
    """For GNU's OpenMP GOMP_SPINCOUNT goes before OMP_WAIT_POLICY."""
    shell["OMP_WAIT_POLICY"] = "ACTIVE"
    prepare_environment()
    assert not WAITING.keys() & shell.keys()
    assert actor_environment(shell, {}, "info")["OMP_WAIT_POLICY"] == "ACTIVE"
    assert not WAITING.keys() & actor_environment(shell, {}, "info").keys()


def test_a_policy_of_waiting_in_cluster_env_is_not_overruled(shell: dict[str, str]) -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE"}
    prepare_environment()
    apply_environment(given)
    assert shell["OMP_WAIT_POLICY"] == "ACTIVE"
    assert not WAITING.keys() & shell.keys(), "a local Ray's processes inherit it"
    assert not WAITING.keys() & actor_environment(shell, given, "info").keys()
