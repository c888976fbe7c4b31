"""`application/x-ndjson`: one event a line, lines ending in LF or CRLF, blank ones skipped. Pure.

A line that is not JSON is one malformed event, whatever it does to its neighbours in other
readers: lines are cut first and decoded each on its own. A line may also be all else that a body of
JSON may be, an object with `events` say; its events then count one by one.
"""

from json import JSONDecodeError

from handler.decoding_clean import NOT_DECODABLE, Event, columns_of_clean, decoders
from handler.decoding_faulty import Collector, MalformedEventError
from handler.documents import NotEventsError, events_of, events_of_line
from handler.events import EventColumns, EventShape, check_count, check_values
from handler.json_cursor import NOT_JSON

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of each file that was put together


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


def columns_of_lines(body: bytes, shape: EventShape) -> EventColumns:
    """Read lines, fast if they are clean. Raises `RequestError` 413 over a limit."""
    events = clean_events(body, shape)
    columns = None if events is None else columns_of_clean(events, shape)
    return columns_of_faulty(body, shape) if columns is None else columns


def columns_of_faulty(body: bytes, shape: EventShape) -> EventColumns:
    """Read line by line, naming what is wrong. Raises `RequestError` 413 over a limit."""
    check_values(body.count(b",") + body.count(b"\n"), shape)
    lines = _lines(body, shape)
    if lines and lines[0].rstrip()[-1:] in (b"{", b"["):
        whole = _over_several_lines(body, shape)
        if whole is not None:
            return whole
    check_count(len(lines), shape)
    collector = Collector(shape)
    for line in lines:
        try:
            events = _events_of_line(line, shape)
        except MalformedEventError as error:
            collector.skip(error)
            continue
        for event in events:
            collector.add(event)
    return collector.columns()


def _events_of_line(line: bytes, shape: EventShape) -> list[object]:
    """Read the documents on a line, mostly one, all or none."""
    try:
        return events_of_line(line.removeprefix(_BYTE_ORDER_MARK).decode(), shape)
    except RecursionError:
        raise MalformedEventError("event", "not_json", "the line is nested too deeply") from None
    except NotEventsError as error:
        raise MalformedEventError("event", "wrong_type", str(error)) from None
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise MalformedEventError("event", "not_json", f"the line is not JSON: {error}") from None


def _over_several_lines(body: bytes, shape: EventShape) -> EventColumns | None:
    """Read JSON that is printed over several lines; None when it is not."""
    collector = Collector(shape)
    try:
        for event in events_of(body.decode(), shape):
            collector.add(event)
    except (*NOT_JSON, NotEventsError, UnicodeDecodeError):
        return None
    return collector.columns()


def _lines(body: bytes, shape: EventShape) -> list[bytes]:
    if len(body) > shape.max_values:
        check_values(body.count(b"\n"), shape)  # before blank lines without end are split
    return list(filter(bytes.strip, body.split(b"\n")))
