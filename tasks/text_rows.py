"""Rows from text files: JSON lines, JSON, CSV. UTF-8, with or without a byte order mark.

    .jsonl  one object per line        .json  a list of objects, alone or under one key; lines of objects too
    .csv    a line of column names, then the rows; comma, semicolon or tab

Each row comes with its place, as messages name it.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import DataError
from storage.bounded_tables import MAX_TABLE_BYTES, MAX_TABLE_ROWS

MAX_LINE_BYTES = 16 * 2**20
PlacedRow = tuple[str, Mapping[str, Any]]


def json_lines(path: Path) -> Iterator[PlacedRow]:
    """Yields the rows of a JSON Lines file with the place of each. Raises DataError for what is malformed or too
    large."""
    with path.open("rb") as file:
        number, num_bytes = 0, 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number, num_bytes = number + 1, num_bytes + len(raw)
            place = f"{path}, line {number}"
            if len(raw) > MAX_LINE_BYTES or num_bytes > MAX_TABLE_BYTES or number > MAX_TABLE_ROWS:
                raise DataError(
                    f"{place}: too large: at most {MAX_LINE_BYTES} bytes in a line, and {MAX_TABLE_BYTES} bytes and "
                    f"{MAX_TABLE_ROWS} lines in a file, are read. Mend the line or split the file"
                )
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if raw.strip():
                yield place, _object(raw, place)


def json_file(path: Path) -> Iterator[PlacedRow]:
    """Yields the rows of a file that is one JSON list, or JSON lines. Raises DataError for what is malformed or too
    large."""
    content = _text(path)
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise DataError(f"{path}: not JSON ({error}). Expected a list of objects") from error
        yield from json_lines(path)
        return
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}). Expected a list of objects") from error
    for number, values in enumerate(_list_in(found, path), start=1):
        if not isinstance(values, dict):
            raise DataError(f"{path}, row {number}: expected an object, found {str(values)[:40]!r}")
        yield f"{path}, row {number}", values


def csv_file(path: Path) -> Iterator[PlacedRow]:
    """Every value is text, as it is written; an empty field is no value."""
    content = _text(path)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=_delimiter(content), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise DataError(f"{path}, line 1: columns {repeated} stand there more than once; rename all but one")
        for values in reader:
            place = f"{path}, line {reader.line_num}"
            if len(values) > len(columns):
                raise DataError(
                    f"{place}: {len(values)} values for {len(columns)} columns: put texts that hold the delimiter in "
                    'double quotes, and write a quote in them twice ("")'
                )
            if values:
                yield place, {name: value or None for name, value in zip(columns, values, strict=False)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}). Mend the line") from error


def _delimiter(content: str) -> str:
    """What stands most often in the line of column names."""
    names = content.partition("\n")[0]
    return max(",;\t", key=names.count)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_TABLE_BYTES + 1)
    if len(content) > MAX_TABLE_BYTES:
        raise DataError(f"{path}: more than {MAX_TABLE_BYTES} bytes, the most that is read of a file; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}). Save it as UTF-8") from error


def _object(raw: bytes, place: str) -> dict[str, Any]:
    try:
        values = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error}): convert the file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f'{place}: not JSON ({error}). Expected one object per line: {{"question": ..}}') from error
    if not isinstance(values, dict):
        raise DataError(f'{place}: expected an object like {{"question": "..", "answer": ".."}}, found {raw[:40]!r}')
    return values


def _list_in(found: Any, path: Path) -> list[Any]:
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else []
    if isinstance(found, list):
        return found
    if len(lists) == 1:
        return lists[0]
    raise DataError(f'{path}: expected a list of objects: [{{"question": "..", "answer": ".."}}, ..]')
