"""The slow path: events read one by one, the good ones kept, each fault named. Pure.

Clean requests never come here, so what it costs to be exact is paid by requests that need it.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from handler.decoding_clean import NOT_DECODABLE
from handler.events import EventColumns, EventError, EventShape, as_float32, check_count

Value = TypeVar("Value")
Json = Raw | bytes

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_user_id = msgspec.json.Decoder(str | int).decode
_decode_number = msgspec.json.Decoder(float).decode
_decode_numbers = msgspec.json.Decoder(list[float]).decode


class MalformedEventError(Exception):
    """One event cannot be used: the field, a code, the reason."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(field, code, detail)


def columns_one_by_one(
    events: Sequence[Json],
    shape: EventShape,
    check: Callable[[Json], None] = lambda _: None,
) -> EventColumns:
    """Read each event's JSON on its own.

    `check` looks at an event first and may raise `MalformedEventError`. Raises `RequestError` 413
    over `shape.max_events`.
    """
    check_count(len(events), shape)
    positions: list[int] = []
    user_ids: list[str] = []
    timestamps: list[float] = []
    features: list[NDArray[np.float32]] = []
    errors: list[EventError] = []
    for index, raw in enumerate(events):
        try:
            check(raw)
            fields = _fields(raw)
            user_id = _user_id(fields, shape.max_user_id_bytes)
            timestamp = _timestamp(fields)
            row = _features(fields, shape.features)
        except MalformedEventError as error:
            errors.append(EventError(index, *error.args))
            continue
        positions.append(index)
        user_ids.append(user_id)
        timestamps.append(timestamp)
        features.append(row)
    return EventColumns(
        total=len(events),
        positions=np.array(positions, np.int64),
        user_ids=user_ids,
        timestamps=np.array(timestamps, np.float64),
        features=np.array(features, np.float32).reshape(len(features), shape.features),
        errors=errors,
    )


def _fields(raw: Json) -> dict[str, Raw]:
    try:
        return _decode_object(raw)
    except NOT_DECODABLE:
        raise MalformedEventError("event", "wrong_type", "expected an object") from None


def _required(fields: dict[str, Raw], field: str) -> Raw:
    try:
        return fields[field]
    except KeyError:
        raise MalformedEventError(field, "missing", f"'{field}' is required") from None


def _user_id(fields: dict[str, Raw], max_bytes: int) -> str:
    value = _decode(_decode_user_id, fields, "user_id", "expected a string or an integer")
    user_id = str(value)
    if not user_id:
        raise MalformedEventError("user_id", "empty", "must not be empty")
    if len(user_id.encode()) > max_bytes:
        raise MalformedEventError("user_id", "too_long", f"longer than {max_bytes} bytes")
    return user_id


def _timestamp(fields: dict[str, Raw]) -> float:
    expected = "expected epoch seconds as a number"
    return float(_decode(_decode_number, fields, "timestamp", expected))


def _features(fields: dict[str, Raw], count: int) -> NDArray[np.float32]:
    row = _decode(_decode_numbers, fields, "features", f"expected an array of {count} numbers")
    if len(row) != count:
        raise MalformedEventError(
            "features", "wrong_length", f"expected {count} numbers, got {len(row)}"
        )
    values = as_float32(np.array(row, np.float64))
    if not np.isfinite(values).all():
        raise MalformedEventError("features", "out_of_range", "a number does not fit float32")
    return values


def _decode(
    decode: Callable[[Raw], Value], fields: dict[str, Raw], field: str, expected: str
) -> Value:
    """Decode one field; a number too large for float64 is told from a wrong type."""
    raw = _required(fields, field)
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        if "out of range" in str(error):
            raise MalformedEventError(
                field, "out_of_range", "a number does not fit float64"
            ) from None
        raise MalformedEventError(field, "wrong_type", expected) from None
    except NOT_DECODABLE:
        raise MalformedEventError(field, "wrong_type", expected) from None
