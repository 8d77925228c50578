"""`--set section.key=value` and `--unset section.key`: read, checked against the settings there are, laid over the file.

A value is read as TOML, and as a plain text where the setting wants a text or it is no TOML: the shell has taken the
quotes away before anybody here could see them.
"""

import tomllib
from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from cluster.config.setting_names import field_at, hint, known_keys
from contracts.errors import ConfigError

MAX_SHOWN = 80
_CLOSED_BY = {"[": "]", "{": "}"}


def key_of(override: str) -> str:
    """The dotted name that a `--set` gives."""
    return override.partition("=")[0].strip()


def lay_over(raw: dict[str, Any], root: type[BaseModel], overrides: Sequence[str]) -> None:
    """In place. Raises ConfigError for what is no section.key=value, a value that cannot be read. Of one key given twice the
    later acts, and `overridden` says so."""
    for override in overrides:
        _lay(raw, root, override)


def overridden(overrides: Sequence[str]) -> list[str]:
    """A sentence for each `--set` that a later one takes the effect from: scripts append theirs to what they were given."""
    return [
        f"--set {first:.{MAX_SHOWN}} does not act: --set {later[-1]:.{MAX_SHOWN}} comes after it"
        for place, first in enumerate(overrides)
        if (later := [o for o in overrides[place + 1 :] if f"{key_of(first)}.".startswith(f"{key_of(o)}.")])
    ]


def take_away(raw: dict[str, Any], root: type[BaseModel], key: str) -> None:
    """The key falls back to its default. Raises ConfigError for one that no configuration has."""
    *sections, last = key.strip().split(".")
    if last not in known_keys(root, sections):
        raise ConfigError(f"--unset {key:.80}: unknown key; {hint(root, [*sections, last], whole=True)}")
    table: Any = raw
    for section in sections:
        table = table.get(section) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table.pop(last, None)


def _lay(raw: dict[str, Any], root: type[BaseModel], override: str) -> None:
    key, separator, text = override.partition("=")
    path = key.strip().split(".")
    if not separator or len(path) < 2 or not all(path):
        raise ConfigError(f"--set {override:.{MAX_SHOWN}}: {_what_is_missing(root, key.strip(), separator)}")
    if text.startswith("="):
        raise ConfigError(f"--set {override:.{MAX_SHOWN}}: two = signs; write {key.strip()}={text.lstrip('=')}")
    table = raw
    for depth, section in enumerate(path[:-1], start=1):
        if _is_list(root, path[:depth]):
            within = ".".join(path[:depth])
            raise ConfigError(
                f"--set {override:.{MAX_SHOWN}}: {within} is a list, which is given whole: --set '{within}=[..]'"
            )
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override:.{MAX_SHOWN}}: '{section}' is a value, not a section")
    table[path[-1]] = _value(override, text, wants_text=_wants_text(root, path))


def _what_is_missing(root: type[BaseModel], key: str, separator: str) -> str:
    expected = "expected section.key=value, for example --set learner.num_updates=20"
    if separator and not key:
        return f"the name of the setting is missing; {expected}"
    if key in root.model_fields:
        return f"'{key}' is a section, with the keys {', '.join(known_keys(root, [key])[:6])} ..; {expected}"
    if separator and "." not in key:
        return f"the section is missing; {hint(root, [key])}; {expected}"
    return expected if separator else f"the value is missing; {expected}"


def _wants_text(root: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether the setting is a text, or a text or nothing: then 42, true and 2026-11-27 are texts too."""
    field = field_at(root, path)
    if field is None:
        return False
    annotation = field.annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return str in kinds and set(kinds) <= {str, type(None)}


def _is_list(root: type[BaseModel], path: Sequence[str]) -> bool:
    field = field_at(root, path)
    return field is not None and get_origin(field.annotation) is tuple


def _value(override: str, text: str, *, wants_text: bool) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if reason := _unfinished(text.strip(), wants_text=wants_text):
            raise ConfigError(f"--set {override:.{MAX_SHOWN}}: {reason}") from error
        return text
    except (ValueError, RecursionError) as error:
        if wants_text:
            return text
        raise ConfigError(f"--set {override:.{MAX_SHOWN}}: the value cannot be read: {error}") from error
    if len(found) > 1:  # lines after the first
        return text
    return text if wants_text and not isinstance(found["value"], str) else found["value"]


def _unfinished(text: str, *, wants_text: bool) -> str:
    """Why what begins like a list, a table or a quoted text is none; empty for plain words."""
    first = text[:1]
    if first in ("'", '"'):
        return f"the closing {first} is missing" if text.count(first) == 1 else ""
    if first not in _CLOSED_BY or wants_text:
        return ""
    opened = [bracket for bracket in _outside_quotes(text) if bracket in "[]{}"]
    for opening, closing in _CLOSED_BY.items():
        if missing := opened.count(opening) - opened.count(closing):
            return f"a {closing if missing > 0 else opening} is missing"
    if first == "{":
        return "this is no table: write {key = value, ..}, texts in quotes, all of it in single quotes for the shell"
    return (
        "this is no list: texts in it need quotes, and the shell takes them away unless all of it stands in single quotes, "
        + ('as in --set \'learner.lora_targets=["q_proj", "v_proj"]\'')
    )


def _outside_quotes(text: str) -> str:
    """What is left of the text without what stands in quotes."""
    kept, quote = [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            kept.append(char)
    return "".join(kept)
