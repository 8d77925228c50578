"""`memr eval` of fewer held-out problems than were asked for: all there are, and that is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.cli import evaluate
from cluster.config.run_config import RunConfig
from contracts.errors import ConfigError
from learner.config import LearnerSettings
from learner.scripted_learner import ScriptedLearner


def config_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **task: Any) -> None:
    """What `memr eval scripted-run` finds: the scripted engine over 40 rows."""
    rows = [{"question": f"What is {i} and one?", "answer": i + 1} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"kind": "file", "path": str(tmp_path / "a.jsonl")}
    config = RunConfig.model_validate(
        {"model": {"name": "scripted"}, "task": data | task, "actors": {"engine": "scripted", "max_new_tokens": 8}}
    )
    adapter = ScriptedLearner(LearnerSettings(max_policy_lag=0)).publish()
    monkeypatch.setattr("cluster.commands.evaluate._what_to_evaluate", lambda *_: (config, "scripted", adapter))


def said(problems: int, capsys: pytest.CaptureFixture[str]) -> str:
    evaluate("run", problems=problems, max_new_tokens=None, samples=1, policy_version=None)
    return capsys.readouterr().out


def test_fewer_than_asked_is_a_note_and_all_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config_on(tmp_path, monkeypatch, held_out_share=0.2)
    note, result = said(200, capsys).splitlines()
    number = int(note.removeprefix("note: ").split()[0])
    assert 0 < number < 40
    assert f"{number} held-out problems are there, fewer than --problems 200: all are used. For more raise" in note
    assert f"of {number} held-out problems" in result
    assert said(2, capsys).startswith("eval, version 0"), "as many as were asked for: no note"


def test_without_any_there_is_nothing_to_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config_on(tmp_path, monkeypatch, held_out_share=1e-6)
    with pytest.raises(ConfigError, match=r"nothing to evaluate: there are no held-out problems.*--problems 7"):
        said(7, capsys)
