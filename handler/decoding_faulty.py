"""The slow path: events read one by one, the good ones kept, each fault named. Pure.

Clean requests never come here, so what it costs to be exact is paid by requests that need it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from handler.events import EventColumns, EventError, EventShape, as_float32, check_count

_FLOATS = {float}
_LONGEST_NUMBER = 64  # characters of a text that may be a number in quotes


class MalformedEventError(Exception):
    """One event cannot be used: the field, a code, the reason."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(field, code, detail)


class Collector:
    """Takes a request's events one after the other, and makes columns of the good ones."""

    def __init__(self, shape: EventShape) -> None:
        self._shape = shape
        self._total = 0
        self._positions: list[int] = []
        self._user_ids: list[str] = []
        self._timestamps: list[float] = []
        self._features: list[float] = []  # of all events, one after the other
        self._errors: list[EventError] = []

    def add(self, event: object) -> None:
        """Take the next event, a JSON value; beyond the limit it is only counted."""
        if self._total < self._shape.max_events:
            try:
                self._keep(event)
            except MalformedEventError as error:
                self._errors.append(EventError(self._total, *error.args))
        self._total += 1

    def skip(self, error: MalformedEventError) -> None:
        """Count the next event as malformed."""
        if self._total < self._shape.max_events:
            self._errors.append(EventError(self._total, *error.args))
        self._total += 1

    def columns(self) -> EventColumns:
        """Return what was taken. Raises `RequestError` 413 over `shape.max_events`."""
        check_count(self._total, self._shape)
        count = len(self._positions)
        wide = np.array(self._features, np.float64).reshape(count, self._shape.features)
        columns = EventColumns(
            total=self._total,
            positions=np.array(self._positions, np.int64),
            user_ids=self._user_ids,
            timestamps=np.array(self._timestamps, np.float64),
            features=as_float32(wide),
            errors=self._errors,
        )
        return self._without_infinite(columns, wide)

    def _keep(self, event: object) -> None:
        if not isinstance(event, dict):
            raise MalformedEventError(
                "event", "wrong_type", f"expected an object, got {_kind(event)}"
            )
        user_id = _user_id(_required(event, "user_id"), self._shape.max_user_id_bytes)
        timestamp = _timestamp(_required(event, "timestamp"))
        features = _features(_required(event, "features"), self._shape)
        self._positions.append(self._total)
        self._user_ids.append(user_id)
        self._timestamps.append(timestamp)
        self._features.extend(features)

    def _without_infinite(self, columns: EventColumns, wide: NDArray[np.float64]) -> EventColumns:
        """Leave out events of which a feature does not fit float32: all are looked at together."""
        finite = np.isfinite(columns.features)
        kept: NDArray[np.bool_] = np.all(finite, axis=1)
        if kept.all():
            return columns
        errors = []
        for row in np.flatnonzero(~kept).tolist():
            feature = int(finite[row].argmin())
            detail = no_float32(self._shape.place(feature), wide[row, feature])
            index = int(columns.positions[row])
            errors.append(EventError(index, "features", "out_of_range", detail))
        return columns.keep(kept, errors)


def _required(event: dict[str, object], field: str) -> object:
    try:
        return event[field]
    except KeyError:
        raise MalformedEventError(field, "missing", f"'{field}' is required") from None


def _user_id(value: object, max_bytes: int) -> str:
    if type(value) is str and value.isascii() and 0 < len(value) <= max_bytes:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise MalformedEventError("user_id", "out_of_range", "a number too large to be an id")
    if isinstance(value, float):
        raise MalformedEventError(
            "user_id", "wrong_type",
            "expected a string or an integer, got a number with a point or an exponent (pandas "
            "makes that of integers in a column with gaps): send a string",
        )  # fmt: skip
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise MalformedEventError(
            "user_id", "wrong_type", f"expected a string or an integer, got {_kind(value)}"
        )
    user_id = str(value)
    if not user_id:
        raise MalformedEventError("user_id", "empty", "must not be empty")
    try:
        length = len(user_id.encode())
    except UnicodeEncodeError:
        raise MalformedEventError(
            "user_id", "wrong_type",
            "half a surrogate pair (\\ud800 to \\udfff) is not Unicode: send both halves",
        ) from None  # fmt: skip
    if length > max_bytes:
        raise MalformedEventError("user_id", "too_long", f"longer than {max_bytes} bytes")
    return user_id


def _timestamp(value: object) -> float:
    if _is_number(value):
        seconds = _float(value)
        if math.isnan(seconds):
            raise MalformedEventError("timestamp", "out_of_range", "NaN is no time")
        if math.isinf(seconds):
            raise MalformedEventError(
                "timestamp", "out_of_range", "infinite, or a number that does not fit float64"
            )
        return seconds
    detail = f"expected epoch seconds as a number, got {_kind(value)}"
    if isinstance(value, str) and not _is_quoted_number(value):
        detail += (
            ": send what Python's datetime.timestamp() gives, or Date.parse(…) / 1000 in JavaScript"
        )
    raise MalformedEventError("timestamp", "wrong_type", detail)


def _features(row: object, shape: EventShape) -> list[float]:
    if not isinstance(row, list):
        raise MalformedEventError(
            "features", "wrong_type", f"expected an array of {shape.expected()}, got {_kind(row)}"
        )
    if len(row) != shape.features:
        raise MalformedEventError("features", "wrong_length", wrong_length(len(row), shape))
    if set(map(type, row)) == _FLOATS:
        return row
    for position, number in enumerate(row):
        if not _is_number(number):
            place = shape.place(position)
            raise MalformedEventError("features", "wrong_type", no_number(place, _kind(number)))
    return list(map(_float, row))


def wrong_length(length: int, shape: EventShape) -> str:
    """Say how many features are wanted."""
    return f"expected {shape.expected()}, got {length}"


def no_number(place: str, kind: str) -> str:
    """Say which feature is no number, and what it is instead."""
    why = " (pandas writes NaN so)" if kind == "null" else ""
    return f"{place} is {kind}{why}: send a number"


def no_float32(place: str, number: float) -> str:
    """Say which feature does not fit float32, and why."""
    what = "NaN" if math.isnan(number) else "infinite, or does not fit float32"
    return f"{place} is {what}: send a finite number"


def _is_number(value: object) -> bool:
    return type(value) in (int, float)  # not a bool, which is an int to Python


def _float(number: object) -> float:
    try:
        return float(number)  # type: ignore[arg-type]  # a number, as was looked at
    except OverflowError:  # an integer beyond float64
        return math.inf


def _kind(value: object) -> str:
    """Name a JSON value's type, for people."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a number in quotes (send it without them)" if _is_quoted_number(value) else "text"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else "a number"


def _is_quoted_number(text: str) -> bool:
    if len(text) > _LONGEST_NUMBER:
        return False
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
