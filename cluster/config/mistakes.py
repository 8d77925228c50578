"""What is wrong with a configuration, from pydantic's account of it: file or `--set`, line, key, what is allowed, nearest name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.config.set_options import key_of
from cluster.config.setting_names import field_at, hint, known_keys
from contracts.settings import CODE_PATTERN

_OF_A_LIST = 'Input should be a list, for example ["a", "b"]'
_PLAINER = {
    "tuple_type": _OF_A_LIST,
    "list_type": _OF_A_LIST,
    "string_type": "Input should be a valid string: a text, in quotes where it stands in a file",
    "dict_type": "Input should be a valid dictionary: a table, {key = value, ..}",
}
_NO_DESCRIPTION = ("value_error", "missing", "model_type")
Problem = Mapping[str, Any]


def explain_all(
    path: Path, text: str, root: type[BaseModel], overrides: Sequence[str], problems: Sequence[Problem]
) -> list[str]:
    """One sentence for each thing that is wrong. text: of the file. problems: ValidationError.errors()."""
    by_place: dict[tuple[str, ...], list[Problem]] = {}
    for problem in problems:
        by_place.setdefault(_place(root, problem), []).append(problem)
    inner = [place for place, found in by_place.items() if any(p["type"] != "too_short" for p in found)]
    return [
        _explain(path, text, root, overrides, list(place), found)
        for place, found in by_place.items()
        if place in inner
        or not any(other[: len(place)] == place for other in inner)  # a list is short of what was refused
    ]


def _place(root: type[BaseModel], problem: Problem) -> tuple[str, ...]:
    """The setting itself: of one that may be several things pydantic tells each of them apart."""
    place = tuple(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return place
    while len(place) > 1 and not place[-1].isdigit() and field_at(root, place) is None and field_at(root, place[:-1]):
        if not known_keys(root, place[:-1]) and "[" not in place[-1] and "-" not in place[-1]:
            break  # a key of a free table
        place = place[:-1]
    return place


def _explain(
    path: Path,
    text: str,
    root: type[BaseModel],
    overrides: Sequence[str],
    location: list[str],
    problems: Sequence[Problem],
) -> str:
    first = problems[0]
    where = _where(path, text, overrides, location, first)
    if first["type"] == "extra_forbidden":
        if not location[:-1]:
            return f"{where}: unknown section '{location[-1]}'; {hint(root, location)}"
        return f"{where}: unknown key '{location[-1]}' in [{'.'.join(location[:-1])}]; {hint(root, location)}"
    dotted = ".".join(location) or "configuration"
    message = ", or ".join(dict.fromkeys(_message(root, location, problem) for problem in problems))
    if first["type"] in _NO_DESCRIPTION:
        return f"{where}: {dotted}: {message}"
    field = field_at(root, location)
    near = _nearest(first)
    meaning = (
        f"{'' if near else '.'} {dotted} is: {field.description}" if field is not None and field.description else ""
    )
    return f"{where}: {dotted}: {message} (given: {first['input']!r:.200}){near}{meaning}"


def _message(root: type[BaseModel], location: Sequence[str], problem: Problem) -> str:
    if problem["type"] == "model_type":
        keys = ", ".join(known_keys(root, location)[:6])
        return f"Input should be a table with the keys {keys} (given: {problem['input']!r:.200})"
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == CODE_PATTERN:
        return "your own as FILE.py:name"
    return _PLAINER.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))


def _nearest(problem: Problem) -> str:
    """The one of a list of names that was meant, as a question."""
    if problem["type"] != "literal_error":
        return ""
    near = difflib.get_close_matches(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _where(path: Path, text: str, overrides: Sequence[str], location: Sequence[str], problem: Problem) -> str:
    """The `--set` that gave it; else the file and its line, with what was set beside it and the sentence speaks of."""
    dotted = ".".join(location)
    if dotted:
        for override in overrides:
            key = key_of(override)
            unknown = problem["type"] == "extra_forbidden" and key.startswith(f"{dotted}.")
            if unknown or f"{dotted}.".startswith(f"{key}."):
                return f"--set {override:.80}"
    words = set(re.findall(r"[a-z_0-9]+", problem["msg"]))
    beside = [o for o in overrides if key_of(o).startswith(dotted) and key_of(o).rpartition(".")[2] in words]
    return f"{path}{_line_of(text, location)}" + "".join(f" with --set {override:.80}" for override in beside)


def _line_of(text: str, location: Sequence[str]) -> str:
    """`:12` if the key stands in the file; overrides and defaults have no line."""
    names = [part for part in location if not part.isdigit()]
    section, current = ".".join(names[:-1]), ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("["):
            current = line.partition("]")[0].strip("[ \t")
            if current == ".".join(names):
                return f":{number}"
        elif names and current == section and re.match(rf"\s*['\"]?{re.escape(names[-1])}['\"]?\s*=", line):
            return f":{number}"
    return ""
