"""The fast path: events that are as they should be, decoded typed and checked as columns. Pure.

Whatever is off makes it give up, and the request is read event by event (`decoding_faulty`). A
property test holds the two equal.

The decoders are made for one shape of event, so what msgspec can check while it decodes (types,
the number of features, the length of a user id in characters) costs no pass of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from handler.events import EventColumns, EventShape

# A malformed document, a value of another type, bytes that are not UTF-8, nesting too deep.
NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# From here on float32 rounds to infinity: half a step above its largest number.
_TOO_LARGE = 2.0**128 - 2.0**103


class Event(msgspec.Struct, gc=False):
    """One event as the decoder leaves it. It refers to nothing that could refer back: no gc."""

    user_id: str | int
    timestamp: float
    features: tuple[float, ...]


class Body(msgspec.Struct, gc=False):
    """An object, which may have `events`."""

    events: list[Event] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Decoders:
    """Typed decoders for one shape of event; each raises one of `NOT_DECODABLE`."""

    event: Callable[[bytes], Event]  # a document that is one event
    array: Callable[[bytes], list[Event]]
    body: Callable[[bytes], Body]


@cache
def decoders(shape: EventShape) -> Decoders:
    """Return the decoders for a shape."""
    user_id = Annotated[str, Meta(min_length=1, max_length=shape.max_user_id_bytes)]
    features: Any = tuple[(float,) * shape.features]  # type: ignore[misc]  # as many as it has
    fields = [("user_id", user_id | int), ("timestamp", float), ("features", features)]
    event: Any = msgspec.defstruct("Event", fields, bases=(Event,), gc=False)
    # An object with `events`, whatever else it has, means these: it does not decode as one event.
    alone: Any = msgspec.defstruct(
        "Alone", [*fields, ("events", UnsetType, UNSET)], bases=(Event,), gc=False
    )
    array: Any = list[event]
    body: Any = msgspec.defstruct(
        "Body", [("events", array | UnsetType, UNSET)], bases=(Body,), gc=False
    )
    return Decoders(
        event=msgspec.json.Decoder(alone).decode,
        array=msgspec.json.Decoder(array).decode,
        body=msgspec.json.Decoder(body).decode,
    )


def columns_of_clean(events: list[Event], shape: EventShape) -> EventColumns | None:
    """Turn decoded events into columns; None when one is malformed after all."""
    user_ids = _user_ids(events, shape.max_user_id_bytes)
    if user_ids is None:
        return None
    # Lists of attributes, not generators: on small requests that is what the time goes to.
    numbers = chain.from_iterable([event.features for event in events])
    flat = np.fromiter(numbers, np.float64, len(events) * shape.features)
    if np.abs(flat).max(initial=0.0) >= _TOO_LARGE:
        return None
    return EventColumns(
        total=len(events),
        positions=np.arange(len(events), dtype=np.int64),
        user_ids=user_ids,
        timestamps=np.fromiter([event.timestamp for event in events], np.float64, len(events)),
        features=flat.astype(np.float32).reshape(len(events), shape.features),
        errors=[],
    )


def _user_ids(events: list[Event], max_bytes: int) -> list[str] | None:
    """Return the ids as strings; None when one is too long. Cheap when all are ASCII strings."""
    user_ids: list[Any] = [event.user_id for event in events]
    try:
        if "".join(user_ids).isascii():
            return user_ids  # the decoder has counted their characters
    except TypeError:  # some are integers
        user_ids = [str(user_id) for user_id in user_ids]
    if max(len(user_id.encode()) for user_id in user_ids) > max_bytes:
        return None
    return user_ids
