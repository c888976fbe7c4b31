"""Request bodies -> columns of events, and what is wrong with the others. Pure.

There are two ways through for JSON and NDJSON, and a property test holds them equal:

- the *fast path* (`decoding_clean`) decodes a clean body in one typed pass; the columns of all
  clean bodies of a TorchServe batch are made and checked together, and cut apart as views,
  because for a request of a few events numpy's overhead is most of the work;
- when anything is off, the *slow path* (`documents`, `decoding_faulty`) reads event by event and
  names each fault.

So clean traffic pays nothing for the quality of error messages. Arrow comes as columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from handler import decoding_json, decoding_ndjson
from handler.decoding_arrow import columns_of_arrow
from handler.decoding_clean import Event, columns_of_clean
from handler.errors import RequestError
from handler.events import EventColumns, EventShape, check_count

# Decoded events wait for their columns at a few hundred bytes each: not for more than these.
_MAX_TOGETHER = 4096


@dataclass(frozen=True, slots=True)
class Format:
    """How bodies of a media type are read."""

    clean: Callable[[bytes, EventShape], list[Event] | None]
    faulty: Callable[[bytes, EventShape], EventColumns]


JSON = Format(decoding_json.clean_events, decoding_json.columns_of_faulty)
NDJSON = Format(decoding_ndjson.clean_events, decoding_ndjson.columns_of_faulty)
ARROW = Format(lambda _body, _shape: None, columns_of_arrow)

Outcome = EventColumns | RequestError


def decode(body: bytes, form: Format, shape: EventShape) -> EventColumns:
    """Decode one body. Raises `RequestError` 400 when it has no events, 413 over a limit."""
    (outcome,) = decode_together([(body, form)], shape)
    if isinstance(outcome, RequestError):
        raise outcome
    return outcome


def decode_together(bodies: Sequence[tuple[bytes, Format]], shape: EventShape) -> list[Outcome]:
    """Decode each body; what comes of one does not depend on the others."""
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, list[Event]] = {}
    events_waiting = 0
    for place, (body, form) in enumerate(bodies):
        try:
            events = form.clean(body, shape)
            if events is None:
                outcomes[place] = form.faulty(body, shape)
                continue
            check_count(len(events), shape)
        except RequestError as error:
            outcomes[place] = error.bare()
            continue
        waiting[place] = events
        events_waiting += len(events)
        if events_waiting >= _MAX_TOGETHER:
            outcomes |= _settle(waiting, bodies, shape)
            waiting, events_waiting = {}, 0
    outcomes |= _settle(waiting, bodies, shape)
    return [outcomes[place] for place in range(len(bodies))]


def _settle(
    waiting: dict[int, list[Event]], bodies: Sequence[tuple[bytes, Format]], shape: EventShape
) -> dict[int, Outcome]:
    """Make the columns of decoded bodies, together; each on its own when that does not work."""
    if not waiting:
        return {}
    groups = list(waiting.values())
    events = groups[0] if len(groups) == 1 else list(chain.from_iterable(groups))
    columns = columns_of_clean(events, shape)
    if columns is not None:
        return dict(zip(waiting, columns.cut([len(group) for group in groups]), strict=True))
    if len(groups) > 1:
        return dict(
            chain.from_iterable(
                _settle({place: group}, bodies, shape).items() for place, group in waiting.items()
            )
        )
    ((place, _),) = waiting.items()
    body, form = bodies[place]
    try:
        return {place: form.faulty(body, shape)}
    except RequestError as error:
        return {place: error.bare()}
