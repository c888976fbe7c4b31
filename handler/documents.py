"""Text -> the events in its JSON documents, for requests that are read event by event. Pure.

A document is what a body may be: an object with `events`, an array of events, or one event. A body
of JSON is a document, or several that follow one another; of a body of lines, each line is.
"""

from collections.abc import Iterator

from handler.events import EVENT_FIELDS, EventShape, check_count
from handler.json_cursor import NOT_JSON, Cursor

_SHOWN = (
    '{"events": [{"user_id": "…", "timestamp": epoch seconds, "features": [numbers]}, …]}, an '
    "array of such events, or one of them"
)
# Bodies of other servers, by a field that they have.
_OF_OTHERS = {
    "instances": "TensorFlow Serving's and KServe's",
    "inputs": "KServe's (Open Inference Protocol)",
    "dataframe_split": "MLflow's",
    "dataframe_records": "MLflow's",
    "batches": "the state service's POST /scores",
}


class NotEventsError(Exception):
    """A document has no place for events; the message says what to send."""


class EventsNotArrayError(NotEventsError):
    """A document has `events`, and they are no array."""


def events_of(text: str, shape: EventShape) -> Iterator[object]:
    """Read all documents of a text, and yield their events.

    Raises one of `NOT_JSON`, `NotEventsError` for a document without a place for events, or
    `RequestError` 413 for more documents than there may be events.
    """
    cursor = Cursor(text)
    documents = 0
    while not documents or cursor.peek():
        yield from _events_of_one(cursor)
        documents += 1
        check_count(documents, shape)


def events_of_line(text: str, shape: EventShape) -> list[object]:
    """Return `events_of` a line, all or none; quicker where it is one event, as most are."""
    cursor = Cursor(text)
    value = cursor.value()
    if isinstance(value, dict) and "events" not in value and not cursor.peek():
        return [_one_event(value)]
    return list(events_of(text, shape))


def _events_of_one(cursor: Cursor) -> Iterator[object]:
    """Read one document."""
    start = cursor.peek()
    if start == "[":
        yield from cursor.elements()
    elif start == "{":
        fields: dict[str, object] = {}
        several = False
        for key in cursor.members():
            if key != "events":
                fields[key] = cursor.value()
            elif several:
                raise NotEventsError("'events' is there twice: put all events into one array")
            elif cursor.peek() != "[":
                raise EventsNotArrayError("'events' must be an array: put the events in brackets")
            else:
                several = True
                yield from cursor.elements()
        if not several:
            yield _one_event(fields)
    else:
        cursor.value()
        raise NotEventsError("the JSON is no object and no array: send " + _SHOWN)


def _one_event(fields: dict[str, object]) -> dict[str, object]:
    if any(field in fields for field in EVENT_FIELDS):
        return fields
    for field, whose in _OF_OTHERS.items():
        if field in fields:
            raise NotEventsError(f"a body with '{field}' is {whose}: send {_SHOWN}")
    raise NotEventsError(
        f"the object has neither 'events' nor an event's fields (user_id, …): send {_SHOWN}",
    )


def are_lines(text: str) -> bool:
    """Tell whether a text has several lines, of which the first is a document."""
    first, _, rest = text.lstrip().partition("\n")
    if not rest or rest.isspace():
        return False
    cursor = Cursor(first)
    try:
        cursor.value()
        return not cursor.peek()
    except NOT_JSON:
        return False
