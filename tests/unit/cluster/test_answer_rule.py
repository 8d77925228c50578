"""A run that goes on under another answer rule than its own is told what changed; a new run has the rule's number."""

import json
from pathlib import Path
from typing import get_args

import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.launch.answer_rule_change import tell_changed_rule
from cluster.record.events.resuming import AnswerRuleChanged
from cluster.record.resume import begin_or_go_on
from tasks.answer_rule import ANSWER_RULE, changes_since
from tasks.config import AnswerForm, TaskSettings
from tests.harness import make_config


def begun(tmp_path: Path) -> Path:
    config = make_config(tmp_path)
    begin_or_go_on(config, CharTokenizer("abc"), {"template_hash": "t"}, "model", override=False)
    return config.run_path


def test_a_new_run_names_its_rule_and_goes_on_without_a_word(tmp_path: Path) -> None:
    path = begun(tmp_path)
    assert json.loads((path / "manifest.json").read_text())["answer_rule"] == ANSWER_RULE
    assert tell_changed_rule(path, make_config(tmp_path)) == ""
    assert not (path / "events.jsonl").exists()


@pytest.mark.parametrize("named", [None, 1, "two"])
def test_a_run_of_before_is_told_in_one_line_which_its_events_keep(tmp_path: Path, named: object) -> None:
    path = begun(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["answer_rule"]
    (path / "manifest.json").write_text(json.dumps(manifest | ({} if named is None else {"answer_rule": named})))
    told = tell_changed_rule(path, make_config(tmp_path))
    assert told.startswith(
        f"this run was begun under answer rule 1, and answers are judged by rule {ANSWER_RULE} from here on"
    )
    assert "the number that a text states is found otherwise" in told
    [event] = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["headline"], event["was"]) == (AnswerRuleChanged.written_as, told, 1)


@pytest.mark.parametrize("form", get_args(AnswerForm))
def test_every_form_is_told_what_is_another_for_it(form: AnswerForm) -> None:
    assert "decimal commas" in changes_since(1, TaskSettings(answer_form=form))
    assert changes_since(ANSWER_RULE, TaskSettings(answer_form=form)) == ""
