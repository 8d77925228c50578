"""Reads untrusted JSON: bounded, checked against a declared shape, refused with a DataError.

file or bytes  ->  read_fields / parse_fields  ->  an object whose fields have the declared types
               ->  read_object                 ->  a dictionary of anything (records that people look at)
"""

import json
import os
import stat
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contracts.errors import DataError

MAX_JSON_BYTES = 64 * 2**20
"""The largest JSON file that memr writes, a snapshot's manifest, has a few hundred kilobytes."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fields = TypeVar("Fields")


class Stored(BaseModel):
    """The shape of a JSON object on disk. Keys beyond the declared ones are left alone."""

    model_config = ConfigDict(frozen=True, strict=True)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """A regular file's content. Raises DataError for anything else (a device and a pipe never end) and beyond the bound."""
    try:
        refuse_unbounded(path, path.stat(), max_bytes)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def refuse_unbounded(path: Path, found: os.stat_result, max_bytes: int) -> None:
    """Raises DataError for what is no regular file, and beyond the bound."""
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is not a regular file; put the file itself in its place")
    if found.st_size > max_bytes:
        raise DataError(f"{path} has {found.st_size} bytes, at most {max_bytes} are read: it is not what memr wrote")


def read_fields(path: Path, kind: type[Fields]) -> Fields:
    """The file as a `kind`. Raises DataError naming the file and the keys that are missing or of another type."""
    return parse_fields(read_bounded(path, MAX_JSON_BYTES), kind, str(path))


def parse_fields(payload: bytes | str, kind: type[Fields], where: str) -> Fields:
    """JSON as a `kind` (a Stored, or a type that pydantic knows). Raises DataError that begins with `where`."""
    try:
        found: Fields = TypeAdapter(kind).validate_json(payload, strict=True)
    except ValidationError as error:
        raise DataError(f"{where} is not what memr wrote: {_first(error)}") from error
    return found


def read_object(path: Path) -> dict[str, Any]:
    """Raises DataError for a file that is not one JSON object."""
    return parse_object(read_bounded(path, MAX_JSON_BYTES), str(path))


def parse_object(payload: bytes | str, where: str) -> dict[str, Any]:
    """Any JSON object; NaN is let through, since metrics are never cleaned. Raises DataError that begins with `where`."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{where} holds a JSON {type(found).__name__}; expected an object with named values")
    return found


def _first(error: ValidationError, most: int = 3) -> str:
    """The first few complaints, without the content that they are about."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    shown = [": ".join(filter(None, (".".join(map(str, p["loc"]))[:80], p["msg"][:200]))) for p in problems[:most]]
    return "; ".join(shown) + (f"; and {len(problems) - most} more" if len(problems) > most else "")
