"""`application/json`: an object with `events`, a bare array of events, or one event. Pure.

Refuses what JSON does not have: NaN, Infinity.
"""

import re

import msgspec
from msgspec import UNSET, Raw

from handler.decoding_clean import NOT_DECODABLE, Event, decoders
from handler.decoding_faulty import columns_one_by_one
from handler.errors import RequestError
from handler.events import EVENT_FIELDS, EventColumns, EventShape, check_values

_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def clean_events(body: bytes, shape: EventShape) -> list[Event] | None:
    """Decode a clean body in one typed pass; None when it is not clean."""
    decode = decoders(shape)
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the fields that it skips
        if body.lstrip()[:1] == b"[":
            return decode.array(body)
        events = decode.body(body).events
        return [decode.event(body)] if events is UNSET else events
    except NOT_DECODABLE:
        return None


def columns_of_faulty(body: bytes, shape: EventShape) -> EventColumns:
    """Read a body event by event.

    Raises `RequestError` 400 when the body is not JSON or has no place for events, 413 over a
    limit.
    """
    return columns_one_by_one(_raw_events(body, shape), shape)


def _raw_events(body: bytes, shape: EventShape) -> list[Raw]:
    """Split the body into its events without looking inside them."""
    try:
        body.decode()
        check_values(body.count(b","), shape)  # commas bound the values cheaply
        document = msgspec.json.decode(body, type=Raw)
        start = bytes(document).lstrip()[:1]
        if start == b"[":
            return _decode_array(body)
        if start != b"{":
            raise RequestError(
                400, "not_events", "expected an object with 'events', an array, or one event"
            )
        fields = _decode_object(body)
    except RecursionError:
        raise RequestError(400, "not_json", "the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise RequestError(400, "not_json", f"the body is not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise RequestError(400, "not_json", f"the body is not JSON: {error}{_hint(body)}") from None
    if "events" in fields:
        try:
            return _decode_array(fields["events"])
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
