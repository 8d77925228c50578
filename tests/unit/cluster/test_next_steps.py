"""What memr advises can be done: the lines after "next:", and every `memr ...` in a message."""

import ast
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from cluster.commands.cli import app
from cluster.commands.next_steps import next_steps
from cluster.commands.summary import after_label, show_status, show_summary
from cluster.record.checkpoint import MANIFEST
from cluster.record.run_dir import claim_run, write_summary
from cluster.record.run_view import read_run
from storage.arrow import write_groups
from tests.fakes import make_group, make_scored
from tests.tree import PACKAGES, ROOT, source_files
from tests.unit.cluster.test_recorder import finished


def commands() -> dict[str, Any]:
    """By name as it is typed, `memory query` too."""
    group: Any = typer.main.get_command(app)
    found = dict(group.commands)
    return found | {f"memory {name}": command for name, command in found.pop("memory").commands.items()}


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    for length in (2, 1):
        if (name := " ".join(words[:length])) in commands():
            return commands()[name], words[length:]
    raise AssertionError(f"there is no command `memr {' '.join(words)}`")


def check(line: str) -> None:
    """Raises a UsageError for arguments that the command does not take."""
    program, *words = shlex.split(line, comments=True)
    assert program == "memr"
    command, arguments = command_of(words)
    command.make_context(words[0], arguments)


def with_checkpoint(path: Path) -> None:
    """A folder by its name, as those see it who only look."""
    folder = path / "checkpoints" / "step-000002"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")


async def steps_of(tmp_path: Path, exit_code: int = 0, **sections: Any) -> list[str]:
    _, path = await finished(tmp_path, **sections)
    write_summary(path, {"exit_code": exit_code, "updates": 2, "wall_s": 1.0})
    return next_steps(read_run(path))


async def test_a_stopped_run_is_told_of_resume_first(tmp_path: Path) -> None:
    steps = await steps_of(tmp_path, exit_code=130)
    assert steps[0].startswith(f"memr resume {tmp_path / 'r'} ")
    for step in steps:
        check(step)


async def test_a_finished_run_is_told_how_to_go_on(tmp_path: Path) -> None:
    steps = await steps_of(tmp_path)
    assert any("--set learner.num_updates=4" in step for step in steps)
    for step in steps:
        check(step)


async def test_what_would_be_refused_is_not_advised(tmp_path: Path) -> None:
    """A scripted run has nothing to export; without memory there is nothing to query; a schedule that ends cannot grow."""
    steps = await steps_of(tmp_path, memory={"profile": "off"}, learner={"schedule": "linear"})
    assert not [step for step in steps if any(word in step for word in ("export", "memory query", "num_updates"))]


async def test_memory_is_asked_a_question_that_the_run_had(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    with_checkpoint(path)
    [query] = [step for step in next_steps(read_run(path)) if "memory query" in step]
    check(query)
    assert re.search(r"'question \d+\?'$", query)


@pytest.mark.parametrize("question", ["-3 + 5 = ?", "it's 'quoted' $HOME `ls` # no comment", "\n\n"])
async def test_a_question_that_a_shell_would_read_otherwise_is_quoted(question: str, tmp_path: Path) -> None:
    import dataclasses

    _, path = await finished(tmp_path)
    with_checkpoint(path)
    scored = make_scored(dataclasses.replace(make_group(3), question=question))
    write_groups([scored], path / "rollouts" / "step-999999-trained-00000003.parquet")
    [query] = [step for step in next_steps(read_run(path)) if "memory query" in step]
    check(query)
    expected = question if question.startswith("it") else "a question"
    assert shlex.split(query)[-1] == expected


async def test_a_folder_with_spaces_is_quoted(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    moved = path.rename(path.with_name("r (copy)"))
    for step in next_steps(read_run(moved)):
        check(step)
        assert str(moved) in shlex.split(step)


async def test_a_run_at_work_is_left_alone_and_one_whose_supervisor_shows_its_result_is_not(tmp_path: Path) -> None:
    """The supervisor is an owner of the run while it prints: `memr train` once ended without a word of what to do next."""
    _, path = await finished(tmp_path)
    write_summary(path, {"exit_code": 0, "updates": 2, "wall_s": 1.0})
    claim_run(path, supervisor=os.getppid())
    assert next_steps(read_run(path)) == []
    claim_run(path, supervisor=os.getpid())
    assert next_steps(read_run(path)) != []


@pytest.mark.parametrize("show", [show_summary, show_status])
async def test_summary_and_status_print_the_steps(show: Any, tmp_path: Path) -> None:
    _, path = await finished(tmp_path, eval={"problems": 4, "every_updates": 0})
    console = Console(width=60, record=True)
    show(console, read_run(path))
    assert f"memr resume {path}" in console.export_text()


async def test_a_run_that_stopped_says_at_which_update_its_last_evaluation_was(tmp_path: Path) -> None:
    _, path = await finished(tmp_path, eval={"problems": 4, "every_updates": 1})
    run = read_run(path)
    assert after_label(run) == "after"
    run.evals[:] = [line for line in run.evals if line["step"] < 2]
    assert after_label(run) == "at update 1 of 2"


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a source file, docstrings too; what an f-string puts in is one word, X."""
    tree = ast.parse(path.read_text())
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(v.value if isinstance(v, ast.Constant) else "X" for v in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def advised(text: str) -> list[list[str]]:
    return [found.replace("\n", " ").split() for found in re.findall(r"`memr ([^`]+)`", text)]


SOURCES = source_files(*PACKAGES)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", SOURCES + PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_message_or_a_page_names_is_there(path: Path) -> None:
    texts = [(0, path.read_text())] if path.suffix == ".md" else sentences(path)
    for line, text in texts:
        for words in advised(text):
            if words[0].startswith("--"):
                assert words == ["--help"]
                continue
            command, rest = command_of(words)
            options = {name for parameter in command.params for name in parameter.opts}
            unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in options]
            assert not unknown, f"{path}:{line}: `memr {' '.join(words)}`: no option {unknown}"


def test_the_search_finds_what_is_not_there() -> None:
    with pytest.raises(AssertionError, match="no command `memr fly"):
        command_of(advised("try `memr fly away`")[0])
    with pytest.raises(Exception, match="No such option: --verbose"):
        check("memr status runs/a --verbose")
