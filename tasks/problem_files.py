"""Rows of question and answer from a file or a dataset hub; every row remembers where it stood."""

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import DataError
from loading.load_errors import loading
from loading.near_names import did_you_mean
from storage.bounded_tables import MAX_TABLE_ROWS, read_parquet
from tasks.hub_files import hub_files
from tasks.text_rows import PlacedRow, csv_file, json_file, json_lines

MAX_ZEROS = 400
"""What no float of 64 bits reaches."""


class Reading(Enum):
    """How numbers of a file become texts. Runs of earlier commits know their data by what was read then: the same file is the
    same data (cluster/record/legacy_numbers.py)."""

    OWN_DIGITS = "as now: 0.1 of a 32-bit column is 0.1, 1e-05 is 0.00001"
    WIDE = "from commit 4360f17 to before 9763a5b: 0.1 of a 32-bit column is 0.10000000149011612"
    AS_PYTHON_PRINTS = "up to commit be586f9: 0.1 of a 32-bit column is 0.10000000149011612, and 1e-05 stays 1e-05"


@dataclass(frozen=True, slots=True)
class Row:
    """place: file and line, or file and row, counted from 1, as messages name it."""

    place: str
    values: Mapping[str, Any]
    reading: Reading = Reading.OWN_DIGITS

    def text(self, field: str, setting: str) -> str:
        """The value as text, numbers as written. Raises DataError with place, key and what to change."""
        if field not in self.values and (inner := _inner(self.values, field)) is not None:
            return Row(self.place, {field: inner}, self.reading).text(field, setting)
        if field not in self.values:
            keys = [key[:60] for key in islice(_names(self.values), 50)]
            close = difflib.get_close_matches(field, keys, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"keys here: {', '.join(sorted(keys)) or 'none'}."
            raise DataError(f"{self.place}: no key '{field}'; {hint} Set {setting} to the right key, or mend the row")
        value = self.values[field]
        if not _is_text(value):
            raise DataError(
                f"{self.place}: '{field}' is {_shown(value)}; expected a text that is not "
                f"empty, or a number. Mend the row, or set {setting} to another key"
            )
        as_printed = isinstance(value, str) or self.reading is Reading.AS_PYTHON_PRINTS
        text = str(value) if as_printed else _digits(value)
        refuse_unwritable(text, self.place, field)
        return text

    def others(self, *used: str) -> str:
        """The columns that are not `used` as one JSON object; "" where there are none."""
        rest = {str(key): value for key, value in self.values.items() if key not in used and value is not None}
        try:
            return json.dumps(rest, default=_in_json) if rest else ""
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{self.place}: a column cannot be kept for rewards: {error}. Take it out") from error


def read_rows(path: Path, reading: Reading = Reading.OWN_DIGITS) -> list[Row]:
    """Raises DataError for a file that is missing, empty, or not what its name says."""
    reader = _READERS.get(path.suffix.lower())
    if path.suffix.lower() in _PACKED:
        raise DataError(
            f"{path}: packed files are not read; unpack it, and give what was in it ({', '.join(_READERS)})"
        )
    if reader is None:
        raise DataError(f"{path}: problems are read from {', '.join(_READERS)} files; convert it or rename it")
    try:
        there, other = path.is_file(), "a folder or a device, no file" if path.exists() else "no such file"
    except OSError as error:
        there, other = False, f"cannot be looked at ({error.strerror})"
    if not there:
        raise DataError(
            f"{path.absolute()}: {other}.{did_you_mean(path, folder=False)} Set task.path to your own file, and "
            "task.held_out_path too or take it away with --unset task.held_out_path. A path is relative to the configuration "
            "file, and to the working directory when it comes from --set"
        )
    try:
        placed = reader(path) if reader is not _parquet else _parquet(path, wide=reading is not Reading.OWN_DIGITS)
        rows = [Row(place, values, reading) for place, values in islice(placed, MAX_TABLE_ROWS)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: no problems in it")
    return rows


def read_hub(dataset: str, config: str | None, split: str, reading: Reading = Reading.OWN_DIGITS) -> list[Row]:
    """One split of a hub dataset. Raises DataError where it cannot be had."""
    rows = (row for path in hub_files(dataset, config, split) for row in read_rows(path, reading))
    return [Row(f"{dataset}[{split}], row {number}", row.values, reading) for number, row in enumerate(rows, start=1)]


def _parquet(path: Path, *, wide: bool = False) -> Iterator[PlacedRow]:
    table = read_parquet(path)
    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: columns {repeated} stand there more than once; rename all but one")
    with loading(f"{path}: holds values that cannot be read", "Write it again, or use .jsonl"):
        columns = [_column(column, wide=wide) for column in table.columns]
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        yield f"{path}, row {number}", dict(zip(names, values, strict=True))


def _column(column: pa.ChunkedArray, *, wide: bool) -> list[Any]:
    """Numbers of 16 and 32 bits by their own shortest digits (0.1, not 0.10000000149011612), unless wide; times that Python's clock has no
    place for (pandas' nanoseconds) as text."""
    if not wide and (pa.types.is_float32(column.type) or pa.types.is_float16(column.type)):
        narrow = np.float32 if pa.types.is_float32(column.type) else np.float16
        return [None if value is None else float(str(narrow(value))) for value in column.to_pylist()]
    try:
        return list(column.to_pylist())
    except (pa.ArrowException, ValueError, OverflowError):
        texts = list(column.cast(pa.string()).to_pylist())
        if beyond := next((text for text in texts if text is not None and text.startswith(_BEYOND)), None):
            raise OverflowError(f"a time that no calendar has: {beyond.removeprefix(_BEYOND).strip(' :>')}") from None
        return texts


_BEYOND = "<value out of range"
"""What Arrow writes for such a time."""
_READERS: dict[str, Callable[[Path], Iterator[PlacedRow]]] = {
    ".jsonl": json_lines,
    ".json": json_file,
    ".csv": csv_file,
    ".parquet": _parquet,
}


_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz")


def _inner(values: Mapping[str, Any], field: str) -> Any:
    """`reward_model.ground_truth`: a value within an object; None where there is none."""
    found: Any = values
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _names(values: Mapping[str, Any]) -> Iterator[str]:
    """Of what can be asked for: keys, and keys within objects."""
    for key, value in values.items():
        yield str(key)
        if isinstance(value, Mapping):
            yield from (f"{key}.{name}" for name in value)


def _in_json(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal | np.floating) else str(value)


def _is_text(value: Any) -> bool:
    """A text that is not empty, or a number; what stands for a missing number (NaN) is neither."""
    if isinstance(value, float | Decimal | np.floating) and not math.isfinite(value):
        return False
    kinds = str | int | float | Decimal | np.floating
    return not isinstance(value, bool) and isinstance(value, kinds) and bool(str(value).strip())


def _digits(value: "float | Decimal | np.floating[Any]") -> str:
    """Without exponent: 0.00001, not 1e-05; but no thousand zeros."""
    if isinstance(value, int):
        return str(value)
    number = Decimal(str(value))
    return format(number, "f") if abs(number.adjusted()) <= MAX_ZEROS else str(value)


def refuse_unwritable(text: str, place: str, field: str) -> None:
    """Raises DataError for a text with a NUL character or half of a surrogate pair."""
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
