"""What is printed holds users' and models' text, which may look like markup."""

import io
import sys

import pytest

from cluster.commands.cli import main
from cluster.watch.terminal import terminal


def test_text_in_brackets_is_printed_as_it_is() -> None:
    console = terminal()
    console.file = io.StringIO()
    console.print("the answer [/INST] of [learner]")
    assert console.file.getvalue() == "the answer [/INST] of [learner]\n"


def test_an_error_names_the_section(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["memr", "plan", "configs/scripted.toml", "--set", "learner.num_update=3"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "unknown key 'num_update' in [learner]; did you mean 'num_updates'?" in capsys.readouterr().err
