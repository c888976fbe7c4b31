"""`application/vnd.apache.arrow.stream`: columns from the start, checked as columns. Pure.

`user_id` is utf8 (also large, or as views), an integer, or a dictionary of these; `timestamp` a
number or a timestamp; `features` a list of numbers, of fixed size or not. Other columns are not
looked at. A null is a missing value.

The stream is not trusted: `arrow_messages` refuses what could take more memory than was sent, Arrow
validates every offset, index and character of our columns (`validate(full=True)`), and rows are
counted before anything is made of them, as is what they refer to: each record batch looks at its
whole dictionary anew, and any number of views can name one long string.
"""

import struct
from functools import lru_cache

import numpy as np
import pyarrow as pa

from handler.arrow_columns import (
    bytes_referred_to,
    bytes_viewed,
    cast_of,
    columns_of_batch,
    is_features,
    is_timestamp,
    is_user_id,
)
from handler.arrow_messages import KEPT_SCHEMAS, check_messages
from handler.errors import RequestError
from handler.events import EVENT_FIELDS, EventColumns, EventShape, check_count

# Some tenths of a second. Honest streams stay far below: 50,000 views of ids are 12.8 MB.
MAX_BYTES_REFERRED_TO = 64 * 2**20

_NOT_ARROW = (pa.ArrowException, OSError, struct.error, UnicodeDecodeError)


def columns_of_arrow(body: bytes, shape: EventShape) -> EventColumns:
    """Read an IPC stream, all its record batches as one request.

    Raises `RequestError` 400 when it is not one or lacks a column, 413 over a limit.
    """
    try:
        columns = _columns_of(check_messages(body), shape.features)
        parts, first = [], 0
        for batch in _record_batches(body, columns, shape):
            parts.append(columns_of_batch(batch, first, shape))
            first += batch.num_rows
    except _NOT_ARROW as error:
        detail = " ".join(str(error).split())[:200]
        raise RequestError(
            400, "not_arrow", f"the body is not a well-formed Arrow IPC stream: {detail}"
        ) from None
    return _joined(parts, shape)


@lru_cache(KEPT_SCHEMAS)
def _columns_of(schema_message: bytes, features: int) -> tuple[int, ...]:
    """Return where our three columns stand. Raises `RequestError` 400 where one does not fit."""
    schema = pa.ipc.read_schema(pa.py_buffer(schema_message))
    places = tuple(_only(schema.names, field) for field in EVENT_FIELDS)
    _check_types(schema, features)
    return places


def _record_batches(
    body: bytes, columns: tuple[int, ...], shape: EventShape
) -> list[pa.RecordBatch]:
    """Return these columns of each record batch, validated; their bytes are the body's."""
    source = pa.BufferReader(body)
    options = pa.ipc.IpcReadOptions(
        included_fields=list(columns),
        use_threads=False,
        ensure_alignment=pa.ipc.Alignment.DataTypeSpecific,
    )
    batches, rows, references = [], 0, _References()
    with pa.ipc.open_stream(source, options=options) as stream:
        for batch in stream:
            rows += batch.num_rows
            check_count(rows, shape)
            references.count(batch.column("user_id"))
            batch.validate(full=True)
            if batch.num_rows:
                batches.append(batch)
        if rest := len(body) - source.tell():
            raise RequestError(400, "not_arrow", f"{rest} bytes follow the end of the stream")
    return batches


class _References:
    """How much the user ids of all record batches refer to, counted before it is looked at."""

    def __init__(self) -> None:
        self._bytes = 0

    def count(self, user_ids: pa.Array) -> None:
        """Raise `RequestError` 413 when it is too much."""
        if pa.types.is_dictionary(user_ids.type):
            user_ids = user_ids.dictionary
            self._add(bytes_referred_to(user_ids))
        if pa.types.is_string_view(user_ids.type):
            self._add(bytes_viewed(user_ids))

    def _add(self, count: int) -> None:
        self._bytes += count
        if self._bytes > MAX_BYTES_REFERRED_TO:
            raise RequestError(
                413,
                "too_many_record_batches",
                f"the record batches refer to more than {MAX_BYTES_REFERRED_TO} bytes of user ids, "
                "a dictionary counting once for each batch: put more rows into each batch, "
                "or only the user ids in use into the dictionary",
            )


def _only(names: list[str], field: str) -> int:
    if names.count(field) != 1:
        times = "no" if field not in names else "more than one"
        raise RequestError(
            400,
            "wrong_schema",
            f"the stream has {times} column '{field}': user_id, timestamp and features (a list in "
            "each row) are wanted, once each",
        )
    return names.index(field)


def _check_types(schema: pa.Schema, features: int) -> None:
    """Raise `RequestError` 400 for a column whose type says that it is something else."""
    for field, fits, expected in (
        ("user_id", is_user_id, "utf8, an integer, or a dictionary of these"),
        ("timestamp", is_timestamp, "a number or a timestamp"),
        ("features", is_features, "a list of numbers, such as fixed_size_list<float32>"),
    ):
        found = schema.field(field).type
        if not fits(found):
            raise RequestError(
                400,
                "wrong_schema",
                f"column '{field}' is {str(found)[:80]}; expected {expected}: "
                + cast_of(found, field, features),
            )


def _joined(parts: list[EventColumns], shape: EventShape) -> EventColumns:
    if len(parts) == 1:
        return parts[0]
    return EventColumns(
        total=sum(part.total for part in parts),
        positions=np.concatenate([np.empty(0, np.int64), *(part.positions for part in parts)]),
        user_ids=[user_id for part in parts for user_id in part.user_ids],
        timestamps=np.concatenate([np.empty(0), *(part.timestamps for part in parts)]),
        features=np.concatenate(
            [np.empty((0, shape.features), np.float32), *(part.features for part in parts)]
        ),
        errors=[error for part in parts for error in part.errors],
    )
