"""A run that goes on under another answer rule than it was begun under: said in one line, and written into its events."""

import time
from pathlib import Path

from cluster.config.run_config import RunConfig
from cluster.record.events.resuming import AnswerRuleChanged
from cluster.record.incidents import append_event
from storage.bounded_json import read_object
from tasks.answer_rule import ANSWER_RULE, FIRST_RULE, changes_since


def tell_changed_rule(run_path: Path, config: RunConfig) -> str:
    """The line for whoever resumes the run, "" where it goes on under its own rule. A manifest without a number is of a
    commit before there was one; what it holds else is no number and counts so too."""
    named = read_object(run_path / "manifest.json").get("answer_rule", FIRST_RULE)
    rule = named if isinstance(named, int) and not isinstance(named, bool) else FIRST_RULE
    told = changes_since(rule, config.task)
    if told:
        append_event(run_path, AnswerRuleChanged(told, rule=ANSWER_RULE, was=rule).at(time.time()))
    return told
