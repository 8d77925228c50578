"""Rows of question and answer from JSON lines, Parquet, or a dataset hub; every row remembers where it stood."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.bounded_tables import MAX_TABLE_BYTES, MAX_TABLE_ROWS, read_parquet
from contracts.errors import DataError
from tasks.hub_files import hub_files

MAX_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """place: file and line, or file and row, counted from 1, as messages name it."""

    place: str
    values: Mapping[str, Any]

    def text(self, field: str, setting: str) -> str:
        """The value as text, numbers as written. Raises DataError with place, key and what to change."""
        if field not in self.values:
            keys = [str(key)[:40] for key in islice(self.values, 50)]
            close = difflib.get_close_matches(field, keys, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"keys here: {', '.join(sorted(keys)) or 'none'}."
            raise DataError(f"{self.place}: no key '{field}'; {hint} Set {setting} to the right key, or mend the row")
        value = self.values[field]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise DataError(
                f"{self.place}: '{field}' is {_shown(value)}; expected a text that is not "
                f"empty, or a number. Mend the row, or set {setting} to another key"
            )
        text = str(value)
        _refuse_unwritable(text, self.place, field)
        return text


def read_rows(path: Path) -> list[Row]:
    """Raises DataError for a file that is missing, empty, or not what its name says."""
    readers = {".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: problems are read from .jsonl and .parquet files; convert it or rename it")
    if not path.is_file():
        raise DataError(f"{path.absolute()}: no such file. Set task.path and task.held_out_path to your own files")
    try:
        rows = list(readers[path.suffix](path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: no problems in it")
    return rows


def read_hub(dataset: str, config: str | None, split: str) -> list[Row]:
    """One split of a hub dataset. Raises DataError where it cannot be had."""
    rows = (row for path in hub_files(dataset, config, split) for row in read_rows(path))
    return [Row(f"{dataset}[{split}], row {number}", row.values) for number, row in enumerate(rows, start=1)]


def _json_lines(path: Path) -> Iterator[Row]:
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
            if raw.strip():
                yield Row(place, _object(raw, place))


def _object(raw: bytes, place: str) -> dict[str, Any]:
    try:
        values = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f'{place}: not JSON ({error}). Expected one object per line: {{"question": ..}}') from error
    if not isinstance(values, dict):
        raise DataError(f'{place}: expected an object like {{"question": "..", "answer": ".."}}, found {raw[:40]!r}')
    return values


def _parquet(path: Path) -> Iterator[Row]:
    table = read_parquet(path)
    try:
        rows = table.to_pylist()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: holds values that cannot be read: {error}. Write it again, or use .jsonl") from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"{path}, row {number}", values)


def _refuse_unwritable(text: str, place: str, field: str) -> None:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise DataError(
            f"{place}: '{field}' holds a NUL character or half of a surrogate pair, which no tokenizer and no log takes. "
            "Mend the row"
        )


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, default=str)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
