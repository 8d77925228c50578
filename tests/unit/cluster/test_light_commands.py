"""Commands that have nothing to wait for answer at once. Tested by what they import, which no busy machine changes."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.doctor import Finding, show
from cluster.record.requests import ask
from cluster.record.run_dir import create_run, write_summary
from cluster.record.run_view import read_run
from cluster.watch.terminal import terminal
from contracts.errors import ConfigError
from tests.harness import make_config
from tests.unit.cluster.test_recorder import finished

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"torch", "ray", "transformers", "vllm", "peft", "sentence_transformers", "datasets", "math_verify", "sympy"}
PROBE = """
import json, sys
from cluster.commands.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, [name for name in sys.modules if "." not in name]]), file=sys.stderr)
"""


def imported(*arguments: str) -> tuple[int, set[str], str]:
    """Exit code, top-level modules in the end, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
    )
    *told, last = done.stderr.splitlines()
    code, modules = json.loads(last)
    return code, set(modules), done.stdout + "\n".join(told)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("--version", 0),
        ("train --help", 0),
        ("plan configs/quickstart.toml", 0),
        ("plan configs/quickstart.toml --nodes 2x8", 0),
        ("plan configs/quickstart.toml --set learner.lr=1", 2),
        ("train configs/nothing.toml", 2),
        ("train configs/quickstart.toml --set model.name=scripted", 2),
        ("plan configs/quickstart.toml --nodes 10000x8", 0),
        ("status nothing", 2),
        ("stop nothing", 2),
        ("scale nothing --workers 2", 2),
        ("resume nothing", 2),
        ("report nothing", 2),
        ("replay nothing", 2),
        ("export nothing out", 2),
        ("eval nothing", 2),
        ("memory inspect nothing", 2),
        ("memory query nothing text", 2),
        ("check-task configs/nothing.toml", 2),
    ],
)
def test_a_command_that_waits_for_nothing_imports_nothing_heavy(arguments: str, code: int) -> None:
    found, modules, told = imported(*arguments.split())
    assert found == code, told
    assert not HEAVY & modules, told


@pytest.mark.parametrize(
    ("command", "key", "missing"),
    [
        ("train", "task.path", "none.jsonl"),
        ("train", "task.held_out_path", "none.jsonl"),
        ("train", "task.scorer", "none.py:close"),
        ("check-task", "task.path", "none.jsonl"),
        ("check-task", "task.kind", "none.py:Task"),
        ("eval", "task.path", "none.jsonl"),
    ],
)
def test_a_file_that_is_not_there_is_told_before_anything_is_loaded(
    command: str, key: str, missing: str, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1 + 1?", "answer": 2}\n')
    values = {"task.kind": "file", "task.path": rows, "task.held_out_path": rows, "run.directory": tmp_path}
    sets = [
        word
        for name, value in (values | {key: tmp_path / missing}).items()
        if key != "task.kind" or name == key  # of [task] it has settings of its own
        for word in ("--set", f"{name}={value}")
    ]
    config = "configs/quickstart.toml"
    code, modules, told = imported(
        command, *(["a-model", "--config", config] if command == "eval" else [config]), *sets
    )
    assert code == 2, "named by the configuration"
    assert re.search(r"none\.(jsonl|py\S+): no such file", told), told
    assert not HEAVY & modules
    assert not (tmp_path / "quickstart").exists(), "nothing is left of a run that did not begin"


async def test_a_finished_run_whose_data_is_gone_shows_its_result(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"task": {"kind": "file", "path": str(tmp_path / "gone.jsonl")}}
    path = create_run(make_config(tmp_path, updates=2, **sections), {})
    _, made = await finished(tmp_path / "other")
    shutil.copytree(made, path, dirs_exist_ok=True, ignore=lambda _, names: {"config.toml"} & set(names))
    write_summary(path, {"exit_code": 0, "updates": 2, "wall_s": 1.0})
    code, _, told = imported("train", str(path / "config.toml"))
    assert code == 0, told
    assert "has run already" in told
    (path / "summary.json").unlink()
    code, _, told = imported("train", str(path / "config.toml"))
    assert (code, "gone.jsonl: no such file" in told) == (2, True), told


@pytest.mark.parametrize("command", ["status {run}", "stop {run}", "scale {run} --workers 2", "resume {run}"])
async def test_a_finished_run_is_answered_for_at_once(command: str, tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    write_summary(path, {"exit_code": 0, "updates": 2, "wall_s": 1.0})
    _, modules, told = imported(*command.format(run=path).split())
    assert not HEAVY & modules
    assert str(path) in told


def test_a_run_that_ended_on_another_machine_is_not_waited_for(tmp_path: Path) -> None:
    path = create_run(make_config(tmp_path), {})
    (path / "control").mkdir()
    (path / "process.json").write_text('{"host": "elsewhere", "owners": {}}')
    write_summary(path, {"exit_code": 0, "updates": 2, "wall_s": 1.0})
    with pytest.raises(ConfigError, match="takes no requests"):
        ask(path, ask="stop")
    assert list((path / "control").iterdir()) == [], "refused before a request was left"
    assert read_run(path).finished


def test_doctor_ends_with_a_verdict() -> None:
    console = terminal()
    with console.capture() as shown:
        assert show(console, iter([Finding("cores", "2", None), Finding("memory", "8 GiB", True)]))
    assert shown.get().splitlines()[-1] == "this machine is fit to run memr"
    with console.capture() as shown:
        assert not show(console, iter([Finding("disk", "0 GiB", False, "make room"), Finding("cores", "2", None)]))
    assert shown.get().splitlines()[-1] == "to mend: disk"


def test_doctor_shows_each_finding_before_it_asks_for_the_next() -> None:
    console, shown, seen = terminal(), io.StringIO(), []
    console.file = shown

    def findings() -> Iterator[Finding]:
        yield Finding("cores", "2", None)
        seen.append("cores" in shown.getvalue())
        yield Finding("vLLM", "takes seconds", None)

    show(console, findings())
    assert seen == [True]
