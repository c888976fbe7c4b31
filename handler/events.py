"""What decoding makes of a request: columns of events, and what is wrong with the others. Pure.

These are msgspec's structs for their constructors and hashes, which for a request of one event
would otherwise be a tenth of the work.
"""

from collections.abc import Iterator, Sequence
from itertools import compress

import msgspec
import numpy as np
from numpy.typing import NDArray

from handler.errors import RequestError

EVENT_FIELDS = ("user_id", "timestamp", "features")
MAX_NAMES_SHOWN = 20  # of features, in one error
MAX_INTEGER_DIGITS = 640  # the least that Python lets one set


class EventError(msgspec.Struct, frozen=True):
    """Why one event was skipped: its index in the request, the field, a code, the reason."""

    index: int
    field: str
    code: str
    detail: str


class EventColumns(msgspec.Struct, frozen=True):
    """The well-formed events of one request, as columns of one length n.

    `positions` int64 [n], ascending: each event's index in the request;
    `user_ids` [n]; `timestamps` float64 [n], epoch seconds; `features` float32 [n, features].
    `total` counts the request's events, malformed ones included; `errors` are by index.
    Requests decoded together share their arrays: none of them is written to.
    """

    total: int
    positions: NDArray[np.int64]
    user_ids: list[str]
    timestamps: NDArray[np.float64]
    features: NDArray[np.float32]
    errors: list[EventError]

    def cut(self, lengths: Sequence[int]) -> Iterator["EventColumns"]:
        """Cut clean columns into those of as many requests, of these lengths, without a copy."""
        start = 0
        for length in lengths:
            end = start + length
            yield EventColumns(
                total=length,
                positions=self.positions[:length],
                user_ids=self.user_ids[start:end],
                timestamps=self.timestamps[start:end],
                features=self.features[start:end],
                errors=[],
            )
            start = end

    def keep(self, kept: NDArray[np.bool_], errors: Sequence[EventError]) -> "EventColumns":
        """Return the events of which `kept`, bool [n], is true; `errors` are the others'."""
        return EventColumns(
            total=self.total,
            positions=self.positions[kept],
            user_ids=list(compress(self.user_ids, kept)),
            timestamps=self.timestamps[kept],
            features=self.features[kept],
            errors=sorted([*self.errors, *errors], key=lambda error: error.index),
        )


class EventShape(msgspec.Struct, frozen=True):
    """What an event must look like, and how many a request may hold.

    `feature_names` has a name for each of the `features`, or none at all.
    """

    features: int
    max_events: int
    max_user_id_bytes: int
    feature_names: tuple[str, ...] = ()

    @property
    def max_values(self) -> int:
        """How many JSON values a request may hold that is read event by event.

        An event has its features and a few fields more.
        """
        return self.max_events * (self.features + 16)

    def place(self, position: int) -> str:
        """Say which of the features stands at a position, by its name where it has one.

        >>> EventShape(2, 1, 1, ("age", "amount")).place(1)
        'features[1] (amount)'
        """
        name = f" ({self.feature_names[position]})" if self.feature_names else ""
        return f"features[{position}]{name}"

    def expected(self) -> str:
        """Say what `features` must hold, their names included; of many the first ones.

        >>> EventShape(2, 1, 1, ("age", "amount")).expected()
        '2 numbers (age, amount)'
        """
        noun = "number" if self.features == 1 else "numbers"
        if not self.feature_names:
            return f"{self.features} {noun}"
        more = ", …" if len(self.feature_names) > MAX_NAMES_SHOWN else ""
        return f"{self.features} {noun} ({', '.join(self.feature_names[:MAX_NAMES_SHOWN])}{more})"


def check_count(count: int, shape: EventShape) -> None:
    """Raise `RequestError` 413 when a request has more events than it may."""
    if count > shape.max_events:
        raise RequestError(
            413,
            "too_many_events",
            f"{count} events in one request; the limit is {shape.max_events}: send several",
        )


def check_values(count: int, shape: EventShape) -> None:
    """Raise `RequestError` 413 for so many values that splitting them would fill the memory."""
    if count > shape.max_values:
        raise RequestError(
            413,
            "too_many_values",
            f"more than {shape.max_values} values in one request: send several",
        )


def as_float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Narrow numbers; what does not fit becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def without_unscorable(
    columns: EventColumns, scores: NDArray[np.float64]
) -> tuple[EventColumns, NDArray[np.float64]]:
    """Drop events whose score is not finite: an infinite score would be in a median for ever."""
    finite = np.isfinite(scores)
    why = "the model gave no finite score for these"
    errors = [
        EventError(index, "features", "score_not_finite", why)
        for index in columns.positions[~finite].tolist()
    ]
    return columns.keep(finite, errors), scores[finite]
