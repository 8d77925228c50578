"""Problems from a file or a dataset hub: question and answer per row, GSM8K's `reasoning #### 42` understood.

    rows -> candidates (first of equal questions) -> split by hash or by file -> ProblemList

A question that stands in a file twice, up to case and spacing, is one problem: the first row counts.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contracts.errors import DataError
from tasks.answers import parse_number
from tasks.config import TaskSettings
from tasks.problem_files import Row, read_hub, read_rows
from tasks.problem_list import Candidate, ProblemList, split_by_hash, with_held_out
from tasks.question_hash import question_hash

_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")


def file_task(settings: TaskSettings) -> ProblemList:
    """Raises DataError for a wrong file, naming the line, and ConfigError for a hub dataset without its library."""
    rows, held_out_rows = _training_rows(settings), _held_out_rows(settings)
    candidates = _candidates(rows, settings)
    source = settings.path or f"hub dataset {settings.hub_dataset}"
    if held_out_rows is None:
        return ProblemList(split_by_hash(candidates, settings.split_share, settings.worked_examples), settings, source)
    held_out = [replace(c, problem_id=f"held-out/{c.problem_id}") for c in _candidates(held_out_rows, settings)]
    return ProblemList(with_held_out(candidates, held_out, settings.worked_examples), settings, source)


def _training_rows(settings: TaskSettings) -> list[Row]:
    if settings.path is not None:
        return read_rows(Path(settings.path))
    assert settings.hub_dataset is not None, "the settings refuse a file task without a source"
    return read_hub(settings.hub_dataset, settings.hub_config, settings.hub_split)


def _held_out_rows(settings: TaskSettings) -> list[Row] | None:
    if settings.held_out_path is not None:
        return read_rows(Path(settings.held_out_path))
    if settings.hub_dataset is not None and settings.hub_held_out_split is not None:
        return read_hub(settings.hub_dataset, settings.hub_config, settings.hub_held_out_split)
    return None


def _candidates(rows: Sequence[Row], settings: TaskSettings) -> list[Candidate]:
    by_hash: dict[str, Candidate] = {}
    places: dict[str, str] = {}
    for row in rows:
        candidate = _candidate(row, settings)
        if question_hash(candidate.question) in by_hash:
            continue
        if candidate.problem_id in places:
            raise DataError(
                f"{row.place}: {settings.id_field} '{candidate.problem_id}' is taken by another question "
                f"({places[candidate.problem_id]}). Make the names unique, or set task.id_field to a key that is absent"
            )
        by_hash[question_hash(candidate.question)] = candidate
        places[candidate.problem_id] = row.place
    return list(by_hash.values())


def _candidate(row: Row, settings: TaskSettings) -> Candidate:
    question = row.text(settings.question_field, "task.question_field").strip()
    reasoning, answer = split_solution(row.text(settings.answer_field, "task.answer_field"))
    if not answer or (settings.answer_form == "number" and parse_number(answer) is None):
        raise DataError(
            f"{row.place}: the answer {answer[:60]!r} is not a number, which task.answer_form = 'number' wants. Mend "
            "the row, or set task.answer_form to 'boxed' or 'think_answer'"
        )
    named = row.values.get(settings.id_field) is not None
    problem_id = row.text(settings.id_field, "task.id_field") if named else f"question/{question_hash(question)}"
    return Candidate(problem_id, question, answer, question, reasoning)


def split_solution(solution: str) -> tuple[str, str]:
    """Reasoning and final answer of `reasoning #### 42`, calculator notes (<<6*7=42>>) removed; without the mark
    the whole text is the answer."""
    reasoning, mark, answer = solution.rpartition("####")
    if not mark:
        return "", solution.strip()
    return _CALCULATOR_NOTE.sub("", reasoning).strip(), answer.strip()
