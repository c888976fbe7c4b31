"""`application/json`: an object with `events`, a bare array of events, or one event. Pure.

Of what JSON does not have, NaN, Infinity and numbers beyond float64 cost the event that has them.
Several documents one after the other are read as one request: lines of JSON under the wrong type,
what `jq` prints, or what `curl -d` makes of lines.
"""

from json import JSONDecodeError

from msgspec import UNSET

from handler import decoding_ndjson
from handler.decoding_clean import NOT_DECODABLE, Event, decoders
from handler.decoding_faulty import Collector
from handler.documents import EventsNotArrayError, NotEventsError, are_lines, events_of
from handler.errors import RequestError
from handler.events import EventColumns, EventShape, check_values

_EVENTS = b'"events"'
_ESCAPED_LETTERS = (b"\\u006", b"\\u007")  # those of "events" are among them


def clean_events(body: bytes, shape: EventShape) -> list[Event] | None:
    """Decode a clean body in one typed pass; None when it is not clean."""
    decode = decoders(shape)
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the fields that it skips
        if body.lstrip()[:1] == b"[":
            return decode.array(body)
        events = decode.body(body).events
        if events is UNSET:
            return [decode.event(body)]
        return None if _may_name_events_twice(body) else events
    except NOT_DECODABLE:
        return None


def _may_name_events_twice(body: bytes) -> bool:
    """Tell, too often rather than too seldom; msgspec takes the last of several without a word.

    No field of an event has a "v", and to look for one byte costs next to nothing.
    """
    if b"\\" in body and any(escape in body for escape in _ESCAPED_LETTERS):
        return True
    first = body.find(_EVENTS)
    return body.find(b"v", first + len(_EVENTS)) >= 0 and body.rfind(_EVENTS) != first


def columns_of_faulty(body: bytes, shape: EventShape) -> EventColumns:
    """Read a body event by event.

    Raises `RequestError` 400 when the body is not JSON or has no place for events, 413 over a
    limit.
    """
    check_values(body.count(b","), shape)  # commas bound the values cheaply
    text = _text(body)
    if are_lines(text):
        return decoding_ndjson.columns_of_lines(body, shape)
    collector = Collector(shape)
    try:
        for event in events_of(text, shape):
            collector.add(event)
    except EventsNotArrayError as error:
        raise RequestError(400, "events_not_array", str(error)) from None
    except NotEventsError as error:
        raise RequestError(400, "not_events", str(error)) from None
    except RecursionError:
        raise RequestError(400, "not_json", "the body is nested too deeply") from None
    except JSONDecodeError as error:
        raise RequestError(400, "not_json", _what_is_wrong(text, error)) from None
    return collector.columns()


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            400, "not_json", f"the body is not UTF-8 (byte {error.start}): encode it as UTF-8"
        ) from None


def _what_is_wrong(text: str, error: JSONDecodeError) -> str:
    where = f"the body is not JSON: {error}"
    if text[error.pos : error.pos + 1] == "," and text[: error.pos].rstrip()[-1:] == "}":
        return f"{where}; put brackets around events that are separated by commas"
    first, _, rest = text.lstrip().partition("\n")
    if first[:1] == "{" and rest.lstrip()[:1] == "{":
        return f"{where}; for lines of JSON send Content-Type: application/x-ndjson"
    return where
