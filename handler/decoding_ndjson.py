"""`application/x-ndjson`: one event a line, lines ending in LF or CRLF, blank ones skipped. Pure.

A line that is not JSON is one malformed event, whatever it does to its neighbours in other
readers: lines are cut first and decoded each on its own.
"""

import msgspec
from msgspec import Raw

from handler.decoding_clean import NOT_DECODABLE, Event, decoders
from handler.decoding_faulty import Json, MalformedEventError, columns_one_by_one
from handler.events import EventColumns, EventShape, check_count, check_values


def clean_events(body: bytes, shape: EventShape) -> list[Event] | None:
    """Decode clean lines typed; None when one is not clean. Raises `RequestError` 413."""
    lines = _lines(body, shape)
    check_count(len(lines), shape)
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the fields that it skips
        # As fast as msgspec's decode_lines, which takes several events from one line, or one from
        # several, and would need a pass that tells.
        return list(map(decoders(shape).event, lines))
    except NOT_DECODABLE:
        return None


def columns_of_faulty(body: bytes, shape: EventShape) -> EventColumns:
    """Read line by line, naming what is wrong. Raises `RequestError` 413 over a limit."""
    check_values(body.count(b",") + body.count(b"\n"), shape)
    return columns_one_by_one(_lines(body, shape), shape, _check_is_json)


def _lines(body: bytes, shape: EventShape) -> list[bytes]:
    if len(body) > shape.max_values:
        check_values(body.count(b"\n"), shape)  # before blank lines without end are split
    return list(filter(bytes.strip, body.split(b"\n")))


def _check_is_json(line: Json) -> None:
    try:
        bytes(line).decode()
        msgspec.json.decode(line, type=Raw)
    except NOT_DECODABLE as error:
        raise MalformedEventError("event", "not_json", f"the line is not JSON: {error}") from None
