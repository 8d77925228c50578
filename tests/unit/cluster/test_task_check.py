"""`memr check-task` in a terminal of 80 columns, and in a pipe, which counts as one."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from actors.load import load_worker_tokenizer
from cluster.commands.check_task import run_task_check, show_check
from cluster.config.run_config import RunConfig
from contracts.errors import ConfigError
from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Scored, Verdict
from tasks.check_task import JudgedAnswer, TaskCheckReport, check_task
from tasks.load import load_task
from tasks.task_data import TaskData

QUESTION = "A train leaves at nine and goes sixty miles an hour. " * 4
ANSWER = "<think>\n1500\n</think>\n<answer>\n1500\n</answer>"


def shown(*judged: JudgedAnswer) -> list[str]:
    data = TaskData(1, (judged[0].problem,), (), 0, (), ())
    file = io.StringIO()
    show_check(Console(file=file, width=80), TaskCheckReport(data, (), judged, None, 0, ()))
    return file.getvalue().splitlines()


def test_each_answer_has_its_line_at_80_columns_and_the_question_is_said_once() -> None:
    problem = Problem("a", QUESTION, "1500", ({"role": "user", "content": QUESTION},))
    good = JudgedAnswer(problem, "good", ANSWER, Scored(1.0, True, {"correctness": 1.0}))
    wrong = replace(good, kind="wrong", text="", verdict=Scored(0.0, False, {"correctness": 0.0}))
    lines = shown(good, wrong)
    assert max(map(len, lines)) <= 80
    assert sum("A train leaves" in line for line in lines) == 1
    [of_good] = [line for line in lines if line.startswith("  good")]
    assert "<think>\\n1500" in of_good
    assert "right, reward 1 (correctness 1)" in of_good
    [of_wrong] = [line for line in lines if line.startswith("  wrong")]
    assert "(nothing)" in of_wrong
    assert "wrong, reward 0 (correctness 0)" in of_wrong


def test_a_verdict_of_many_parts_goes_on_below_itself_and_loses_nothing() -> None:
    problem = Problem("a", "?", "1", ({"role": "user", "content": "?"},))
    parts = {"correctness": 1.0, "soft_format": 0.5, "xml_count": 0.25, "integer": 0.125}
    lines = shown(JudgedAnswer(problem, "good", "1", Scored(1.875, True, parts)))
    assert max(map(len, lines)) <= 80
    for name, value in parts.items():
        assert f"{name} {value:g}" in " ".join(" ".join(lines).split())


def test_what_a_run_would_refuse_for_want_of_room_is_refused_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.model_validate({"model": {"name": "scripted"}, "actors": {"engine": "scripted"}})
    file = io.StringIO()
    assert run_task_check(Console(file=file, width=80), config)
    assert "has room for" in file.getvalue()

    monkeypatch.setattr("cluster.launch.context_budget.model_context", lambda _: 8)
    monkeypatch.setattr("cluster.launch.context_budget.unsteady_beyond", lambda _: None)
    monkeypatch.setattr("cluster.commands.check_task.model_of", lambda _: str(tmp_path))
    real = config.model_copy(update={"model": config.model.model_copy(update={"name": "mine"})})
    with pytest.raises(ConfigError, match="the model's context has 8"):
        run_task_check(Console(file=io.StringIO()), real)


class Slow:
    """A verifier whose every call takes 20 s of a clock of ours."""

    def __init__(self) -> None:
        self.now = 0.0

    def verify(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.now += 20.0
        return [Scored(1.0, answer.text.endswith(answer.problem.answer), {}) for answer in answers]

    def close(self) -> None: ...


def test_a_verifier_that_hangs_is_found_out_with_the_first_problems() -> None:
    config = RunConfig.model_validate({"model": {"name": "scripted"}, "actors": {"engine": "scripted"}})
    slow, tokenizer = Slow(), load_worker_tokenizer(config.actors, "scripted")
    report = check_task(load_task(config.task), slow, tokenizer, config.task, clock=lambda: slow.now)
    assert (len(report.problems), report.untried) == (2, 30)
    file = io.StringIO()
    show_check(Console(file=file, width=80), report)
    assert "30 problems were not tried" in " ".join(file.getvalue().split())


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            "memory",
            {"profile": "memr", "encoder": "hash:8", "explore_formula": "{}/mine.py:rihgt"},
            "Did you mean 'right'",
        ),
        ("learner", {"loss": "{}/mine.py:rihgt"}, "Did you mean 'right'"),
        ("actors", {"engine": "{}/mine.py:rihgt"}, "Did you mean 'right'"),
    ],
)
def test_code_that_a_run_would_refuse_is_refused_here(
    tmp_path: Path, section: str, values: dict[str, str], message: str
) -> None:
    (tmp_path / "mine.py").write_text("def right(*given):\n    return given\n")
    named = {name: value.format(tmp_path) for name, value in values.items()}
    sections = {"model": {"name": "scripted"}, "actors": {"engine": "scripted"}}
    config = RunConfig.model_validate(sections | {section: sections.get(section, {}) | named})
    with pytest.raises(ConfigError, match=message):
        run_task_check(Console(file=io.StringIO()), config)
