"""What is wrong with a configuration, from pydantic's account of it: file or `--set`, line, key, what is allowed, nearest name."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.set_options import key_of
from cluster.setting_names import field_at, hint

_OF_A_LIST = 'Input should be a list, for example ["a", "b"]'
_PLAINER = {"tuple_type": _OF_A_LIST, "list_type": _OF_A_LIST}
_NO_DESCRIPTION = ("value_error", "missing")


def explain(path: Path, text: str, root: type[BaseModel], overrides: Sequence[str], problem: dict[str, Any]) -> str:
    """One sentence. text: of the file. problem: one of ValidationError.errors()."""
    location = [str(part) for part in problem["loc"]]
    where = _where(path, text, overrides, location, problem)
    if problem["type"] == "extra_forbidden":
        section = f"[{'.'.join(location[:-1])}]" if location[:-1] else "the top level"
        return f"{where}: unknown key '{location[-1]}' in {section}; {hint(root, location)}"
    dotted = ".".join(location) or "configuration"
    message = _PLAINER.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] in _NO_DESCRIPTION:
        return f"{where}: {dotted}: {message}"
    field = field_at(root, location)
    meaning = f". {dotted} is: {field.description}" if field is not None and field.description else ""
    return f"{where}: {dotted}: {message} (given: {problem['input']!r:.200}){meaning}"


def _where(path: Path, text: str, overrides: Sequence[str], location: Sequence[str], problem: dict[str, Any]) -> str:
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
