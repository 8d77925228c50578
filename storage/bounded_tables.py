"""Reads untrusted Parquet files and Arrow streams up to a bound, or refuses them with a DataError.

A small file can claim, and unpack to, more than any machine holds. What it claims is checked before anything is
unpacked; what it then is, while it is unpacked. A footer that lies about one page costs that page (below 2 GiB) at most
per column.
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import DataError

MAX_TABLE_BYTES = 2**30
MAX_TABLE_ROWS = 5_000_000
_BATCH_ROWS = 256
_RECORD_BATCH_COMPRESSION = 3  # field number in Arrow's format/Message.fbs, table RecordBatch
_MESSAGE_HEADER = 2  # the same, table Message


def read_parquet(
    path: Path,
    schema: pa.Schema | None = None,
    nullable: Collection[str] | None = None,
    max_bytes: int = MAX_TABLE_BYTES,
    max_rows: int = MAX_TABLE_ROWS,
) -> pa.Table:
    """The whole table. Raises DataError, naming the file, for one that is damaged, too large, or of another schema.

    schema: exactly these columns; None takes any. nullable: with it, only these columns may hold nulls.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with pq.ParquetFile(path) as file:
            _check_claims(path, file.metadata, max_bytes, max_rows)
            if schema is not None:
                check_schema(str(path), file.schema_arrow, schema)
            batches = list(_batches(path, file, max_bytes, max_rows))
            table = pa.Table.from_batches(batches, file.schema_arrow)
        return _checked(str(path), table, nullable)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def iterate_parquet(
    path: Path, schema: pa.Schema, nullable: Collection[str], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """What `read_parquet` reads, under the same bounds, a few rows at a time. columns: only these; the schema is checked
    whole."""
    try:
        with pq.ParquetFile(path) as file:
            _check_claims(path, file.metadata, MAX_TABLE_BYTES, MAX_TABLE_ROWS)
            check_schema(str(path), file.schema_arrow, schema)
            for batch in _batches(path, file, MAX_TABLE_BYTES, MAX_TABLE_ROWS, columns):
                yield _checked(str(path), pa.Table.from_batches([batch]), nullable)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def read_stream(payload: bytes, schema: pa.Schema, what: str, nullable: Collection[str] | None = None) -> pa.Table:
    """An Arrow IPC stream, uncompressed as memr writes it: it takes no more memory than it has bytes. Raises DataError."""
    try:
        _refuse_compression(payload, what)
        with pa.ipc.open_stream(payload) as reader:
            check_schema(what, reader.schema, schema)
            table = reader.read_all()
        if table.num_rows > MAX_TABLE_ROWS:
            raise DataError(f"{what} has {table.num_rows} rows, at most {MAX_TABLE_ROWS} are read")
        return _checked(what, table, nullable)
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, struct.error) as error:
        raise DataError(f"not {what}: {error}") from error


def check_schema(where: str, found: pa.Schema, expected: pa.Schema) -> None:
    """Raises DataError naming the columns that are missing, unknown, or of another type."""
    if found.equals(expected):
        return
    names = set(expected.names) ^ set(found.names)
    types = {name for name in expected.names if name in found.names and found.names.count(name) == 1}
    types = {name for name in types if found.field(name).type != expected.field(name).type}
    wrong = ", ".join(sorted(names | types)[:8]) or "in another order, or repeated"
    raise DataError(f"{where}: not the table that memr wrote: missing or different columns: {wrong[:400]}")


def _check_claims(path: Path, metadata: pq.FileMetaData, max_bytes: int, max_rows: int) -> None:
    claimed = _unpacked_bytes(metadata)
    if claimed > max_bytes or metadata.num_rows > max_rows:
        raise DataError(
            f"{path} unpacks to {claimed} bytes in {metadata.num_rows} rows, from {path.stat().st_size} on disk; at most "
            f"{max_bytes} bytes and {max_rows} rows are read. Split the file if it is yours"
        )


def _unpacked_bytes(metadata: pq.FileMetaData) -> int:
    """What the row groups say. Their columns are not asked: over a damaged one pyarrow ends the process."""
    return sum(max(0, int(metadata.row_group(i).total_byte_size)) for i in range(metadata.num_row_groups))


def _batches(
    path: Path, file: pq.ParquetFile, max_bytes: int, max_rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A value that stands once in a dictionary may be repeated in every row, so a step is small enough to pass with that."""
    largest = max(1, _unpacked_bytes(file.metadata))
    rows_per_batch = min(_BATCH_ROWS, max(1, max_bytes // largest))
    num_bytes, num_rows = 0, 0
    for batch in file.iter_batches(batch_size=rows_per_batch, columns=columns, use_threads=False):
        num_bytes, num_rows = num_bytes + batch.nbytes, num_rows + batch.num_rows
        if num_bytes > max_bytes or num_rows > max_rows:
            raise DataError(
                f"{path} unpacks to more than its footer says: stopped at {num_bytes} bytes, {num_rows} rows; at most "
                f"{max_bytes} bytes and {max_rows} rows are read"
            )
        yield batch


def _checked(where: str, table: pa.Table, nullable: Collection[str] | None) -> pa.Table:
    """Offsets and texts are looked through: Arrow trusts them, and would read beyond its buffers."""
    table.validate(full=True)
    if nullable is not None:
        empty = [name for name in table.column_names if name not in nullable and table.column(name).null_count]
        if empty:
            raise DataError(f"{where}: no value in some rows of {', '.join(empty)}")
    return table


def _refuse_compression(payload: bytes, what: str) -> None:
    """memr writes none, and a compressed buffer says for itself how large it becomes."""
    for message in pa.ipc.MessageReader.open_stream(payload):
        if message.type not in ("schema", "record batch"):
            raise DataError(f"{what} holds a message of type '{message.type}', which memr never writes")
        if message.type == "record batch" and _is_compressed(bytes(message.metadata)):
            raise DataError(f"{what} is compressed, which memr never does: it is not read")


def _is_compressed(message: bytes) -> bool:
    """From the FlatBuffers table of a record batch, which Arrow has verified."""
    root = struct.unpack_from("<I", message, 0)[0]
    header = root + _slot(message, root, _MESSAGE_HEADER)
    batch = header + struct.unpack_from("<I", message, header)[0]
    return _slot(message, batch, _RECORD_BATCH_COMPRESSION) != 0


def _slot(message: bytes, table: int, number: int) -> int:
    """Where a FlatBuffers table holds its field `number`, from the table's start; 0 where it holds none."""
    vtable = table - struct.unpack_from("<i", message, table)[0]
    size = struct.unpack_from("<H", message, vtable)[0]
    place = 4 + 2 * number
    return struct.unpack_from("<H", message, vtable + place)[0] if place + 2 <= size else 0
