"""Rows of question and answer from JSON lines, Parquet, or a dataset hub; every row remembers where it stood."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Row:
    """place: file and line, or file and row, counted from 1, as messages name it."""

    place: str
    values: Mapping[str, Any]

    def text(self, field: str, setting: str) -> str:
        """The value as text, numbers as written. Raises DataError with place, key and what to change."""
        if field not in self.values:
            close = difflib.get_close_matches(field, self.values, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"keys here: {', '.join(sorted(self.values)) or 'none'}."
            raise DataError(f"{self.place}: no key '{field}'; {hint} Set {setting} to the right key, or mend the row")
        value = self.values[field]
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise DataError(
                f"{self.place}: '{field}' is {json.dumps(value, default=str)[:80]}; expected a text that is not "
                f"empty, or a number. Mend the row, or set {setting} to another key"
            )
        return str(value)


def read_rows(path: Path) -> list[Row]:
    """Raises DataError for a file that is missing, empty, or not what its name says."""
    readers = {".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: problems are read from .jsonl and .parquet files; convert it or rename it")
    if not path.is_file():
        raise DataError(f"{path.resolve()}: no such file. Set task.path and task.held_out_path to your own files")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise DataError(f"{path}: no problems in it")
    return rows


def read_hub(dataset: str, config: str | None, split: str) -> list[Row]:
    """One split of a hub dataset. Raises ConfigError without the `datasets` package, DataError where loading fails."""
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"task.hub_dataset = '{dataset}' needs the package 'datasets': install it (pip install datasets), or "
            "download the data once and set task.path to a .jsonl or .parquet file"
        ) from error
    try:
        loaded: Iterable[Mapping[str, Any]] = load_dataset(dataset, config, split=split)
    except Exception as error:
        raise DataError(f"hub dataset {dataset}, split {split}: {type(error).__name__}: {error}") from error
    return [Row(f"{dataset}[{split}], row {number}", values) for number, values in enumerate(loaded, start=1)]


def _json_lines(path: Path) -> Iterator[Row]:
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        place = f"{path}, line {number}"
        if not raw.strip():
            continue
        try:
            values = json.loads(raw.decode())
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f'{place}: not JSON ({error}). Expected one object per line: {{"question": ..}}') from error
        if not isinstance(values, dict):
            raise DataError(
                f'{place}: expected an object like {{"question": "..", "answer": ".."}}, found {raw[:40]!r}'
            )
        yield Row(place, values)


def _parquet(path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}. Write it again, or use .jsonl") from error
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(f"{path}, row {number}", values)
