"""A signal before anything runs ends a command with one line and 130, and the line says how to go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cluster.commands.early_signals import LINE, SIGNALS
from cluster.commands.exit_codes import run_command
from cluster.config.supervision import SupervisionSettings
from cluster.recovery.supervisor import Supervisor
from contracts.errors import ConfigError, DataError, LoadError, RunStopped


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_modules_are_imported_leaves_one_line(number: signal.Signals) -> None:
    script = f"import os\nfrom cluster.commands.early_signals import end_at_once\nend_at_once()\nos.kill(os.getpid(), {int(number)})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, f"{LINE}\n")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("name", "told"), [("export", f"{LINE}\n"), ("attempt", "")])
def test_a_signal_inside_a_command_lets_it_clean_up_first(
    number: signal.Signals, name: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app, cleaned = typer.Typer(), []
    before = signal.getsignal(number)

    @app.command()
    def command() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            cleaned.append(name)

    with pytest.raises(SystemExit) as end:
        run_command(lambda: app([]), name)
    assert (end.value.code, cleaned, capsys.readouterr().err) == (130, [name], told)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a"), 2), (LoadError("a"), 2), (DataError("a"), 3), (RunStopped("a"), 3)]
)
def test_one_rule_gives_the_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command(fails, "status")
    assert end.value.code == code
    assert capsys.readouterr().err == "memr: a\n"


LOADS = "import os, signal, time\nos.kill(os.getppid(), {number})\ntime.sleep(600)"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("begun", "told"),
    [(True, "`memr resume {run}` goes on"), (False, "nothing is left of it, and the same command begins it")],
)
def test_a_run_that_is_ended_while_it_loads_says_how_to_go_on(
    number: signal.Signals, begun: bool, told: str, tmp_path: Path
) -> None:
    said: list[str] = []
    if begun:
        (tmp_path / "manifest.json").write_text("{}")
    command = [sys.executable, "-c", LOADS.format(number=int(number))]
    code = Supervisor(command, tmp_path, SupervisionSettings(), say=said.append).run()
    assert code == 130
    assert told.format(run=tmp_path) in said[-1]


def test_a_run_that_told_its_end_itself_is_not_spoken_for(tmp_path: Path) -> None:
    """Its summary has the next steps."""
    said: list[str] = []
    (tmp_path / "summary.json").write_text("{}")
    assert (
        Supervisor([sys.executable, "-c", "exit(130)"], tmp_path, SupervisionSettings(), say=said.append).run() == 130
    )
    assert said == []
