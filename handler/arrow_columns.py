"""One validated Arrow record batch -> columns of events, with no loop over good rows. Pure.

What the columns hold under a null is arbitrary: masks are looked at before values are believed.
No string longer than a user id may be is ever made, because dictionaries and views can name one
string as often as they like.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from handler.decoding_faulty import no_float32, no_number, wrong_length
from handler.events import EventColumns, EventError, EventShape, as_float32

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

_TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_REFERENCE_BYTES = 8  # of an object in a list or array
_NULL = -1  # the length of a string that is not there


def is_user_id(of: pa.DataType) -> bool:
    """Tell whether a column of this type can hold user ids."""
    if pa.types.is_dictionary(of):
        of = of.value_type
    return bool(
        pa.types.is_string(of)
        or pa.types.is_large_string(of)
        or pa.types.is_string_view(of)
        or pa.types.is_integer(of)
    )


def is_timestamp(of: pa.DataType) -> bool:
    """Tell whether a column of this type can hold timestamps."""
    return _is_number(of) or bool(pa.types.is_timestamp(of))


def is_features(of: pa.DataType) -> bool:
    """Tell whether a column of this type can hold features."""
    lists = pa.types.is_fixed_size_list(of) or pa.types.is_list(of) or pa.types.is_large_list(of)
    return bool(lists) and _is_number(of.value_type)


def cast_of(of: pa.DataType, field: str, features: int) -> str:
    """Say which cast makes a column of another type one that is read."""
    wanted, sql = "float64()", "DOUBLE"
    if field == "features":
        wanted, sql = f"list_(pyarrow.float32(), {features})", f"FLOAT[{features}]"
    elif field == "user_id":
        wanted, sql = ("int64()", "BIGINT") if _is_number(of) else ("string()", "VARCHAR")
    elif pa.types.is_date(of):
        wanted, sql = "timestamp('s')", "TIMESTAMP"
    elif pa.types.is_string(of) or pa.types.is_large_string(of):
        wanted, sql = "timestamp('us', 'UTC')", "TIMESTAMP"
    return f"cast it, in DuckDB {field}::{sql}, in pyarrow column.cast(pyarrow.{wanted})"


def _is_number(of: pa.DataType) -> bool:
    return bool(pa.types.is_floating(of) or pa.types.is_integer(of))


def columns_of_batch(batch: pa.RecordBatch, first: int, shape: EventShape) -> EventColumns:
    """Turn a record batch whose row 0 is the request's event `first` into columns.

    The batch is validated in full and its columns are of types that are right.
    """
    faults = _Faults(batch.num_rows, first)
    user_ids = _user_ids(batch.column("user_id"), faults, shape)
    timestamps = _timestamps(batch.column("timestamp"), faults)
    features = _features(batch.column("features"), faults, shape)
    if not faults.errors:
        positions = np.arange(first, first + batch.num_rows, dtype=np.int64)
    else:
        kept = ~faults.faulty
        positions = first + np.flatnonzero(kept)
        user_ids, timestamps, features = user_ids[kept], timestamps[kept], features[kept]
    return EventColumns(
        total=batch.num_rows,
        positions=positions,
        user_ids=user_ids.tolist(),
        timestamps=timestamps,
        features=features,
        errors=sorted(faults.errors, key=lambda error: error.index),
    )


def bytes_referred_to(dictionary: pa.Array) -> int:
    """Return how many bytes are read to check and list a dictionary once.

    Raises `pa.ArrowInvalid` when its length does not fit its buffers.
    """
    dictionary.validate()  # in brief, and before its length is asked for, which could be negative
    buffers = sum(buffer.size for buffer in dictionary.buffers() if buffer is not None)
    return int(len(dictionary) * _REFERENCE_BYTES + buffers)


def bytes_viewed(strings: pa.Array) -> int:
    """Return how many bytes views name, which may name the same ones again and again.

    Raises `pa.ArrowInvalid` when there are fewer views than there should be.
    """
    strings.validate()
    return int(np.maximum(_byte_lengths(strings), 0).sum())


class _Faults:
    """Which rows are malformed, and the first reason for each."""

    def __init__(self, rows: int, first: int) -> None:
        self.faulty: Mask = np.zeros(rows, np.bool_)
        self.errors: list[EventError] = []
        self._first = first

    def note(self, rows: Mask, field: str, code: str, detail: str | Callable[[int], str]) -> None:
        if not rows.any():
            return
        new = rows & ~self.faulty
        for row in np.flatnonzero(new).tolist():
            reason = detail if isinstance(detail, str) else detail(row)
            self.errors.append(EventError(self._first + row, field, code, reason))
        self.faulty |= new

    def missing(self, rows: Mask, field: str) -> None:
        self.note(rows, field, "missing", f"'{field}' is required")


def _user_ids(column: pa.Array, faults: _Faults, shape: EventShape) -> NDArray[np.object_]:
    """Return an id a row, None where it is malformed."""
    longest = shape.max_user_id_bytes
    if pa.types.is_dictionary(column.type):
        names, lengths = _dictionary_names(column, longest)
    else:
        names, lengths = _names(column, np.ones(len(column), np.bool_), longest)
    faults.missing(lengths == _NULL, "user_id")
    faults.note(lengths == 0, "user_id", "empty", "must not be empty")
    faults.note(lengths > longest, "user_id", "too_long", f"longer than {longest} bytes")
    return names


def _dictionary_names(column: pa.Array, max_bytes: int) -> tuple[NDArray[np.object_], Integers]:
    """Name the rows of a dictionary-encoded column, making the string of each entry in use once."""
    valid = _valid(column)
    entries = _numbers(column.indices)[valid].astype(np.int64)
    used = np.zeros(len(column.dictionary), np.bool_)
    used[entries] = True
    entry_names, entry_lengths = _names(column.dictionary, used, max_bytes)
    names = np.full(len(column), None, np.object_)
    lengths = np.full(len(column), _NULL, np.int64)
    names[valid], lengths[valid] = entry_names[entries], entry_lengths[entries]
    return names, lengths


def _names(values: pa.Array, wanted: Mask, max_bytes: int) -> tuple[NDArray[np.object_], Integers]:
    """Return ids, None where malformed or not wanted, and their lengths in bytes, or `_NULL`."""
    integers = pa.types.is_integer(values.type)
    lengths = np.ones(len(values), np.int64) if integers else _byte_lengths(values)
    lengths[~_valid(values)] = _NULL
    usable = wanted & (lengths > 0) & (lengths <= max_bytes)
    if usable.all():
        picked = values.to_pylist()
    elif pa.types.is_string_view(values.type):  # which Arrow cannot filter
        picked = [values[row].as_py() for row in np.flatnonzero(usable).tolist()]
    else:
        picked = values.filter(pa.array(usable)).to_pylist()
    if integers:
        picked = list(map(str, picked))
    names = np.full(len(values), None, np.object_)
    names[usable] = np.array(picked, np.object_)
    return names, lengths


def _byte_lengths(strings: pa.Array) -> Integers:
    count, start = len(strings), strings.offset
    if count == 0:
        return np.empty(0, np.int64)
    _, buffer, *_ = strings.buffers()
    if pa.types.is_string_view(strings.type):  # 16 bytes each, the length first
        views = np.frombuffer(buffer, np.int32, 4 * count, 16 * start)
        return views[::4].astype(np.int64)
    dtype = np.dtype(np.int64 if pa.types.is_large_string(strings.type) else np.int32)
    return np.diff(np.frombuffer(buffer, dtype, count + 1, start * dtype.itemsize)).astype(np.int64)


def _timestamps(column: pa.Array, faults: _Faults) -> NDArray[np.float64]:
    """Return epoch seconds."""
    if pa.types.is_timestamp(column.type):
        ticks_per_second = _TICKS_PER_SECOND[column.type.unit]
        # Apart, because nanoseconds since 1970 are more than float64 tells apart.
        whole, rest = np.divmod(_numbers(column.view(pa.int64())), ticks_per_second)
        seconds = whole + rest / ticks_per_second
    else:
        seconds = _numbers(column).astype(np.float64, copy=False)
    faults.missing(~_valid(column), "timestamp")
    not_finite = ~np.isfinite(seconds)
    faults.note(not_finite, "timestamp", "out_of_range", "NaN and infinity are no time")
    return seconds


def _features(column: pa.Array, faults: _Faults, shape: EventShape) -> NDArray[np.float32]:
    """Return float32 [rows, features], zeros where a row is missing or of another length."""
    count = shape.features
    lengths, starts = _lengths_and_starts(column)
    valid = _valid(column)
    fitting = valid & (lengths == count)
    faults.missing(~valid, "features")
    faults.note(
        lengths != count,
        "features",
        "wrong_length",
        lambda row: wrong_length(int(lengths[row]), shape),
    )
    numbers = _numbers(column.values)
    features = np.zeros((len(column), count), np.float32)
    if fitting.all():  # then the rows lie side by side
        start = starts[0] if len(starts) else 0
        features = as_float32(numbers[start : start + features.size]).reshape(features.shape)
    else:
        features[fitting] = as_float32(numbers[_places(starts[fitting], count)])
    if column.values.null_count:
        null: Mask = np.zeros((len(column), count), np.bool_)
        null[fitting] = ~_valid(column.values)[_places(starts[fitting], count)]
        faults.note(
            np.any(null, axis=1),
            "features",
            "wrong_type",
            lambda row: no_number(shape.place(int(null[row].argmax())), "null"),
        )
    finite: Mask = np.isfinite(features)
    faults.note(
        np.any(~finite, axis=1),
        "features",
        "out_of_range",
        lambda row: _no_float32(features[row], shape),
    )
    return features


def _no_float32(row: NDArray[np.float32], shape: EventShape) -> str:
    position = int(np.isfinite(row).argmin())
    return no_float32(shape.place(position), row[position])


def _lengths_and_starts(column: pa.Array) -> tuple[Integers, Integers]:
    """Return each row's length, and where its first value stands."""
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        rows = np.arange(len(column), dtype=np.int64)
        return np.full(len(column), size, np.int64), (rows + column.offset) * size
    offsets = _numbers(column.offsets).astype(np.int64)
    return np.diff(offsets), offsets[:-1]


def _places(starts: Integers, count: int) -> Integers:
    """Return [rows, count]: where the values of rows of one length stand."""
    return starts[:, np.newaxis] + np.arange(count, dtype=np.int64)


def _numbers(values: pa.Array) -> NDArray[Any]:
    """Return a primitive array's numbers, arbitrary ones under its nulls, without a copy."""
    dtype = np.dtype(values.type.to_pandas_dtype())
    if len(values) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(values.buffers()[1], dtype, len(values), values.offset * dtype.itemsize)


def _valid(values: pa.Array) -> Mask:
    if values.null_count == 0:
        return np.ones(len(values), np.bool_)
    valid: Mask = values.is_valid().to_numpy(zero_copy_only=False)
    return valid
