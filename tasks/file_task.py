"""Problems from a file or a dataset hub: question and answer per row, GSM8K's `reasoning #### 42` understood.

    rows -> candidates (first of equal questions) -> split by hash or by file -> ProblemList

A question that stands in a file twice, up to case and spacing, is one problem: the first row counts, and the others are
counted. The question may be a chat; columns beside question, answer and id reach users' rewards as `problem.metadata`, JSON.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contracts.errors import DataError
from contracts.problem import ChatMessage
from loading.load_errors import named_data
from tasks.answers import parse_number
from tasks.chat_prompt import is_chat, question_of, read_chat, unpacked_chat
from tasks.config import TaskSettings
from tasks.problem_files import Reading, Row, read_hub, read_rows, refuse_unwritable
from tasks.problem_list import Candidate, ProblemList, Split, split_by_hash, with_held_out
from tasks.question_hash import question_hash

_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")
_USUAL = {"question": ("question", "prompt", "problem", "messages"), "answer": ("answer", "solution", "ground_truth")}
"""Keys that are looked for where the settings keep their defaults, the first that a row has."""


def file_task(settings: TaskSettings, reading: Reading = Reading.OWN_DIGITS) -> ProblemList:
    """Raises LoadError for a wrong file, naming the line, and ConfigError for a hub dataset without its library."""
    with named_data():
        return _file_task(settings, reading)


def _file_task(settings: TaskSettings, reading: Reading) -> ProblemList:
    rows, held_out_rows = _training_rows(settings, reading), _held_out_rows(settings, reading)
    candidates, notes = _candidates(rows, settings)
    source = settings.path or f"hub dataset {settings.hub_dataset}"
    if held_out_rows is None:
        split = split_by_hash(candidates, settings.split_share, settings.worked_examples)
        return ProblemList(split, settings, source, notes)
    found, held_out_notes = _candidates(held_out_rows, settings)
    held_out = [replace(c, problem_id=f"held-out/{c.problem_id}") for c in found]
    split = with_held_out(candidates, held_out, settings.worked_examples)
    return ProblemList(split, settings, source, [*notes, *held_out_notes, *_left_out(candidates, split)])


def _left_out(candidates: Sequence[Candidate], split: Split) -> list[str]:
    gone = len(candidates) - len(split.train) - len(split.examples)
    return [f"{gone} training problems are held-out ones too and were left out"] if gone else []


def _training_rows(settings: TaskSettings, reading: Reading) -> list[Row]:
    if settings.path is not None:
        return read_rows(Path(settings.path), reading)
    assert settings.hub_dataset is not None, "the settings refuse a file task without a source"
    return read_hub(settings.hub_dataset, settings.hub_config, settings.hub_split, reading)


def _held_out_rows(settings: TaskSettings, reading: Reading) -> list[Row] | None:
    if settings.held_out_path is not None:
        return read_rows(Path(settings.held_out_path), reading)
    if settings.hub_dataset is not None and settings.hub_held_out_split is not None:
        return read_hub(settings.hub_dataset, settings.hub_config, settings.hub_held_out_split, reading)
    return None


def _candidates(rows: Sequence[Row], settings: TaskSettings) -> tuple[list[Candidate], list[str]]:
    """And what there is to say of them."""
    repeated: list[tuple[Row, Candidate, Candidate]] = []
    by_hash: dict[str, Candidate] = {}
    places: dict[str, str] = {}
    for row in rows:
        candidate = _candidate(row, settings)
        if (first := by_hash.get(question_hash(candidate.question))) is not None:
            repeated.append((row, first, candidate))
            continue
        if candidate.problem_id in places:
            raise DataError(
                f"{row.place}: {settings.id_field} '{candidate.problem_id}' is taken by another question "
                f"({places[candidate.problem_id]}). Make the names unique, or set task.id_field to a key that is absent"
            )
        by_hash[question_hash(candidate.question)] = candidate
        places[candidate.problem_id] = row.place
    return list(by_hash.values()), _repeats(repeated)


def _repeats(repeated: Sequence[tuple[Row, Candidate, Candidate]]) -> list[str]:
    if not repeated:
        return []
    differ = [row.place for row, first, again in repeated if first.answer != again.answer]
    other = f", {len(differ)} of them with another answer ({', '.join(differ[:3])})" if differ else ""
    return [f"{len(repeated)} rows repeat a question and were left out, the first counts{other}"]


def _candidate(row: Row, settings: TaskSettings) -> Candidate:
    question_key, answer_key = _key(row, settings.question_field), _key(row, settings.answer_field)
    chat: tuple[ChatMessage, ...] = ()
    found = unpacked_chat(row.values.get(question_key), row.place, question_key)
    if is_chat(found):
        chat = read_chat(found, row.place, question_key)
        for message in chat:
            refuse_unwritable(message["content"], row.place, question_key)
    question = question_of(chat) if chat else row.text(question_key, "task.question_field").strip()
    reasoning, answer = split_solution(row.text(answer_key, "task.answer_field"))
    number = parse_number(answer)
    if not answer or (settings.answer_form == "number" and (number is None or number.comma)):
        comma = (
            "a decimal comma is read in answers alone, for a reference like this may be a list of two: write a point. "
        )
        raise DataError(
            f"{row.place}: the answer {answer[:60]!r} is not a number, which task.answer_form = 'number' wants. "
            f"{comma if number else ''}Mend the row, or set task.answer_form to 'boxed' or 'think_answer'"
        )
    named = row.values.get(settings.id_field) is not None
    problem_id = row.text(settings.id_field, "task.id_field") if named else f"question/{question_hash(question)}"
    metadata = row.others(question_key, answer_key, settings.id_field)
    return Candidate(problem_id, question, answer, question, reasoning, metadata, chat)


def _key(row: Row, field: str) -> str:
    return next((key for key in _USUAL.get(field, ()) if key in row.values), field)


def split_solution(solution: str) -> tuple[str, str]:
    """Reasoning and final answer of `reasoning #### 42`, calculator notes (<<6*7=42>>) removed; without the mark
    the whole text is the answer."""
    reasoning, mark, answer = solution.rpartition("####")
    if not mark:
        return "", solution.strip()
    return _CALCULATOR_NOTE.sub("", reasoning).strip(), answer.strip()
