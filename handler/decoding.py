"""Request bytes -> columns of events, and what is wrong with the others. Pure.

There are two ways through, and a property test holds them equal:

- the *fast path* decodes a clean body in one typed pass and checks whole columns;
- when anything is off, the *slow path* reads event by event and names each fault.

So clean traffic pays nothing for the quality of error messages. Both refuse what JSON does not
have (NaN, Infinity) and what float64 or float32 cannot hold.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from handler.errors import RequestError

Value = TypeVar("Value")

EVENT_FIELDS = ("user_id", "timestamp", "features")


class EventError(msgspec.Struct, frozen=True):
    """Why one event was skipped: its index in the request, the field, a code, the reason."""

    index: int
    field: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The well-formed events of one request, as columns of one length n.

    `positions` int64 [n], ascending: each event's index in the request;
    `user_ids` [n]; `timestamps` float64 [n], epoch seconds; `features` float32 [n, features].
    `total` counts the request's events, malformed ones included.
    """

    total: int
    positions: NDArray[np.int64]
    user_ids: list[str]
    timestamps: NDArray[np.float64]
    features: NDArray[np.float32]
    errors: list[EventError]


@dataclass(frozen=True, slots=True)
class EventShape:
    """What an event must look like, and how many a request may hold."""

    features: int
    max_events: int
    max_user_id_bytes: int


class _Event(msgspec.Struct):
    user_id: str | int
    timestamp: float
    features: list[float]


class _Body(msgspec.Struct):
    """An object with `events`, or one event: every field may be absent."""

    events: list[_Event] | UnsetType = UNSET
    user_id: str | int | UnsetType = UNSET
    timestamp: float | UnsetType = UNSET
    features: list[float] | UnsetType = UNSET


_decode_array = msgspec.json.Decoder(list[_Event]).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_raw_array = msgspec.json.Decoder(list[Raw]).decode
_decode_raw_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_user_id = msgspec.json.Decoder(str | int).decode
_decode_number = msgspec.json.Decoder(float).decode
_decode_numbers = msgspec.json.Decoder(list[float]).decode

# A malformed document, a value of another type, bytes that are not UTF-8, nesting too deep.
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_json(body: bytes, shape: EventShape) -> EventColumns:
    """Decode an object with `events`, a bare array of events, or one event object.

    Raises `RequestError` 400 when the body is none of these, 413 over `shape.max_events`.
    """
    events = _typed_events(body)
    if events is not None:
        _check_count(len(events), shape)
        columns = _columns_of_clean(events, shape)
        if columns is not None:
            return columns
    return _columns_one_by_one(_raw_events(body, shape), shape)


def _typed_events(body: bytes) -> list[_Event] | None:
    """Decode a clean body in one pass; None when it is not clean."""
    try:
        if body.lstrip()[:1] == b"[":
            return _decode_array(body)
        parsed = _decode_body(body)
    except _NOT_DECODABLE:
        return None
    if parsed.events is not UNSET:
        return parsed.events
    if parsed.user_id is UNSET or parsed.timestamp is UNSET or parsed.features is UNSET:
        return None
    return [_Event(parsed.user_id, parsed.timestamp, parsed.features)]


def _columns_of_clean(events: list[_Event], shape: EventShape) -> EventColumns | None:
    """Check whole columns at once; None when some event is malformed."""
    user_ids = [str(event.user_id) for event in events]
    if not all(user_ids) or _longest_bytes(user_ids) > shape.max_user_id_bytes:
        return None
    rows = [event.features for event in events]
    if any(len(row) != shape.features for row in rows):
        return None
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * shape.features)
    features = _as_float32(flat).reshape(len(rows), shape.features)
    if not np.isfinite(features).all():
        return None
    return EventColumns(
        total=len(events),
        positions=np.arange(len(events), dtype=np.int64),
        user_ids=user_ids,
        timestamps=np.fromiter((event.timestamp for event in events), np.float64, len(events)),
        features=features,
        errors=[],
    )


def _longest_bytes(user_ids: list[str]) -> int:
    """Return the longest id's length in UTF-8, cheaply when all are ASCII."""
    if "".join(user_ids).isascii():
        return max(map(len, user_ids), default=0)
    return max(len(user_id.encode()) for user_id in user_ids)


def _as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what does not fit becomes inf, and is refused as such
        return values.astype(np.float32)


def _raw_events(body: bytes, shape: EventShape) -> list[Raw]:
    """Split the body into its events without looking inside them.

    Raises `RequestError` 400 when the body is not JSON or has no place for events.
    """
    try:
        body.decode()
        _check_values(body, shape)
        document = msgspec.json.decode(body, type=Raw)
        start = bytes(document).lstrip()[:1]
        if start == b"[":
            return _decode_raw_array(body)
        if start != b"{":
            raise RequestError(
                400, "not_events", "expected an object with 'events', an array, or one event"
            )
        fields = _decode_raw_object(body)
    except RecursionError:
        raise RequestError(400, "not_json", "the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise RequestError(400, "not_json", f"the body is not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, "not_json", f"the body is not JSON: {error}{_hint(body)}") from None
    if "events" in fields:
        try:
            return _decode_raw_array(fields["events"])
        except msgspec.DecodeError:
            raise RequestError(400, "events_not_array", "'events' must be an array") from None
    if any(field in fields for field in EVENT_FIELDS):
        return [Raw(body)]
    raise RequestError(
        400, "not_events", "the object has neither 'events' nor an event's fields (user_id, …)"
    )


def _hint(body: bytes) -> str:
    if b"NaN" in body or b"Infinity" in body:
        return "; NaN and Infinity are not JSON"
    if re.search(rb"\\u[dD][89a-fA-F]", body):
        return "; half a surrogate pair (\\ud800 to \\udfff) is not Unicode"
    return ""


def _check_values(body: bytes, shape: EventShape) -> None:
    """Refuse, before it is split, a body of so many values that splitting would fill the memory.

    An event has its features and a few fields more; commas bound the values cheaply.
    """
    limit = shape.max_events * (shape.features + 16)
    if body.count(b",") > limit:
        raise RequestError(
            413, "too_many_values", f"more than {limit} values in one request: send several"
        )


def _check_count(count: int, shape: EventShape) -> None:
    if count > shape.max_events:
        raise RequestError(
            413,
            "too_many_events",
            f"{count} events in one request; the limit is {shape.max_events}: send several",
        )


class _MalformedEventError(Exception):
    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(field, code, detail)


def _columns_one_by_one(raw_events: list[Raw], shape: EventShape) -> EventColumns:
    """Read each event on its own, keeping the good ones and naming what is wrong with the rest."""
    _check_count(len(raw_events), shape)
    positions: list[int] = []
    user_ids: list[str] = []
    timestamps: list[float] = []
    features: list[NDArray[np.float32]] = []
    errors: list[EventError] = []
    for index, raw in enumerate(raw_events):
        try:
            fields = _fields(raw)
            user_id = _user_id(fields, shape.max_user_id_bytes)
            timestamp = _timestamp(fields)
            row = _features(fields, shape.features)
        except _MalformedEventError as error:
            errors.append(EventError(index, *error.args))
            continue
        positions.append(index)
        user_ids.append(user_id)
        timestamps.append(timestamp)
        features.append(row)
    return EventColumns(
        total=len(raw_events),
        positions=np.array(positions, np.int64),
        user_ids=user_ids,
        timestamps=np.array(timestamps, np.float64),
        features=np.array(features, np.float32).reshape(len(features), shape.features),
        errors=errors,
    )


def _fields(raw: Raw) -> dict[str, Raw]:
    try:
        return _decode_raw_object(raw)
    except _NOT_DECODABLE:
        raise _MalformedEventError("event", "wrong_type", "expected an object") from None


def _required(fields: dict[str, Raw], field: str) -> Raw:
    try:
        return fields[field]
    except KeyError:
        raise _MalformedEventError(field, "missing", f"'{field}' is required") from None


def _user_id(fields: dict[str, Raw], max_bytes: int) -> str:
    value = _decode(_decode_user_id, fields, "user_id", "expected a string or an integer")
    user_id = str(value)
    if not user_id:
        raise _MalformedEventError("user_id", "empty", "must not be empty")
    if len(user_id.encode()) > max_bytes:
        raise _MalformedEventError("user_id", "too_long", f"longer than {max_bytes} bytes")
    return user_id


def _timestamp(fields: dict[str, Raw]) -> float:
    expected = "expected epoch seconds as a number"
    return float(_decode(_decode_number, fields, "timestamp", expected))


def _features(fields: dict[str, Raw], count: int) -> NDArray[np.float32]:
    row = _decode(_decode_numbers, fields, "features", f"expected an array of {count} numbers")
    if len(row) != count:
        raise _MalformedEventError(
            "features", "wrong_length", f"expected {count} numbers, got {len(row)}"
        )
    values = _as_float32(np.array(row, np.float64))
    if not np.isfinite(values).all():
        raise _MalformedEventError("features", "out_of_range", "a number does not fit float32")
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
            raise _MalformedEventError(
                field, "out_of_range", "a number does not fit float64"
            ) from None
        raise _MalformedEventError(field, "wrong_type", expected) from None
    except _NOT_DECODABLE:
        raise _MalformedEventError(field, "wrong_type", expected) from None
