"""Bodies through the decoders of both programs, and what must hold whatever they are.

Only `RequestError` and `ServiceError` come out, of 400 or 413; columns are of one length, finite
and within the limits; an answer is JSON; a good request in the same TorchServe batch is read as
alone; and none of it takes long.
"""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import msgspec
import numpy as np
from yarl import URL

from fuzzing.targets import Target
from handler.answering import encode_scores, prediction, problem
from handler.errors import RequestError
from handler.events import EventColumns
from handler.reading import ReadRequest, Request, read_requests
from handler.settings import HandlerSettings
from state_service import wire
from state_service.errors import ServiceError
from state_service.parameters import read_window_question, refuse_unknown
from state_service.settings import Settings

MAX_CPU_SECONDS = 5.0  # of a thread, for one batch: no answer of the scorer may wait for more

_HANDLER = HandlerSettings()
_STATE = Settings()
_NEIGHBOUR = Request(
    b'{"events":[{"user_id":"neighbour","timestamp":1795000000.25,"features":[0.1,-2,3e5]},'
    b'{"user_id":7,"timestamp":1,"features":[1,2,3]}]}',
    {"content-type": "application/json"},
    "neighbour",
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A body on its way: what it is called, where it goes, and with which headers."""

    name: str
    target: Target
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be, and what brought it about."""

    name: str
    target: str
    what: str
    body: bytes


class Broken(AssertionError):  # noqa: N818 - it is said of an invariant
    """What came out is not as it must be."""


def _require(condition: object, what: str) -> None:
    if not condition:
        raise Broken(what)


def look_at_batch(batch: Sequence[Hostile], random: Random) -> list[Finding]:
    """Read hostile requests of the scorer together, a good one among them."""
    requests = [
        Request(
            item.body,
            {"content-type": item.target.content_type}
            | {name.lower(): value for name, value in item.headers},
            f"id-{place}",
        )
        for place, item in enumerate(batch)
    ]
    good = random.randrange(len(requests) + 1)
    requests.insert(good, _NEIGHBOUR)
    try:
        started = time.thread_time()
        outcomes = read_requests(requests, _HANDLER)
        seconds = time.thread_time() - started
        _require(len(outcomes) == len(requests), "not an outcome for each request")
        neighbour = outcomes.pop(good)
        _check_neighbour(neighbour)
        for outcome in outcomes:
            _check_read(outcome)
        _require(seconds < MAX_CPU_SECONDS, f"it took {seconds:.1f} s")
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        if len(batch) > 1:  # whose fault is it?
            alone = [finding for item in batch for finding in look_at_batch([item], random)]
            if alone:
                return alone
        return [
            Finding(item.name, item.target.name, traceback.format_exc(limit=-3), item.body)
            for item in batch
        ]
    return []


def look_at(item: Hostile) -> list[Finding]:
    """Read one hostile body or query of the state service."""
    try:
        started = time.thread_time()
        try:
            outcome = _read_of_state(item)
        except ServiceError as error:
            _require(error.status in (400, 413), f"status {error.status}")
            _require(error.detail and len(error.detail) < 1000, "no detail, or far too much")
            msgspec.json.encode({"code": error.code, "detail": error.detail})
            outcome = None
        seconds = time.thread_time() - started
        if isinstance(outcome, wire.Scores):
            _check_scores(outcome)
        elif isinstance(outcome, wire.MediansQuestion):
            _check_ids(outcome.user_ids)
        _require(seconds < MAX_CPU_SECONDS, f"it took {seconds:.1f} s")
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        return [Finding(item.name, item.target.name, traceback.format_exc(limit=-3), item.body)]
    return []


def _read_of_state(item: Hostile) -> object:
    if item.target is Target.MEDIANS:
        return wire.decode_medians(item.body, item.target.content_type, _STATE)
    if item.target is Target.QUERY:
        query = URL("/?" + item.body.decode("ascii"), encoded=True).query
        refuse_unknown(query, "GET", "/users/{user_id}/stats")
        question = read_window_question(query, _STATE)
        numbers = [question.window or 0.0, question.at or 0.0, *question.quantiles]
        _require(np.isfinite(numbers).all(), "a parameter is not finite")
        return question
    return wire.decode_scores(item.body, item.target.content_type, _STATE)


def _check_neighbour(outcome: ReadRequest | RequestError) -> None:
    (alone,) = read_requests([_NEIGHBOUR], _HANDLER)
    assert isinstance(alone, ReadRequest)
    _require(isinstance(outcome, ReadRequest), "the neighbour is refused")
    assert isinstance(outcome, ReadRequest)
    one, other = outcome.columns, alone.columns
    _require(
        (outcome.key, outcome.dry_run, one.total, one.user_ids, one.errors)
        == (alone.key, alone.dry_run, other.total, other.user_ids, other.errors)
        and one.positions.tobytes() == other.positions.tobytes()
        and one.timestamps.tobytes() == other.timestamps.tobytes()
        and one.features.tobytes() == other.features.tobytes(),
        "the neighbour is read otherwise than alone",
    )


def _check_read(outcome: ReadRequest | RequestError) -> None:
    if isinstance(outcome, RequestError):
        _require(outcome.status in (400, 413), f"status {outcome.status}")
        _require(outcome.detail and len(outcome.detail) < 1000, "no detail, or far too much")
        msgspec.json.decode(problem(outcome, 1).body)
        return
    columns = outcome.columns
    _check_columns(columns)
    scores = encode_scores(columns, np.zeros(len(columns.user_ids)))
    limit = _HANDLER.max_errors_listed
    answer = prediction(columns, scores, recorded="dry_run", result=None, max_errors_listed=limit)
    msgspec.json.decode(answer.body)


def _check_columns(columns: EventColumns) -> None:
    kept, count = columns.positions, len(columns.user_ids)
    named = [error.index for error in columns.errors]
    _require(
        kept.shape == columns.timestamps.shape == (count,) and columns.features.shape == (count, 3),
        "columns of several lengths",
    )
    _require(
        [kept.dtype.str, columns.timestamps.dtype.str, columns.features.dtype.str]
        == ["<i8", "<f8", "<f4"],
        "columns of other types",
    )
    _require(np.isfinite(columns.timestamps).all(), "a timestamp is not finite")
    _require(np.isfinite(columns.features).all(), "a feature is not finite")
    _require((np.diff(kept) > 0).all(), "positions do not ascend")
    _require(named == sorted(named), "errors do not ascend")
    _require(columns.total <= _HANDLER.max_events, "too many events")
    _require(
        count + len(named) == columns.total
        and set(named).union(kept.tolist()) == set(range(columns.total)),
        "not every event is either kept or named",
    )
    _check_ids(columns.user_ids)


def _check_ids(user_ids: Sequence[str]) -> None:
    for user_id in user_ids:
        _require(type(user_id) is str and 1 <= len(user_id.encode()) <= 256, "a user id")


def _check_scores(scores: wire.Scores) -> None:
    _require(len(scores.batches) <= _STATE.max_batches, "too many batches")
    for batch in scores.batches:
        _require(
            len(batch.user_ids) == len(batch.timestamps) == len(batch.scores),
            "columns of several lengths",
        )
        for column in (batch.timestamps, batch.scores):
            _require(column.dtype == np.float64 and column.ndim == 1, "a column of another type")
            _require(np.isfinite(column).all(), "a number is not finite")
        _check_ids(batch.user_ids)
        _require(1 <= len(batch.key.encode()) <= _STATE.max_key_bytes, "a key")
        _require(0 <= batch.skipped < 2**31, "how many were skipped")
        _require(batch.received_at is None or 0 <= batch.received_at <= 2**40, "when it was")
        for text in (batch.request_id, batch.traceparent):
            _require(text is None or text.encode() is not None, "a header")
    for durations in scores.stages.values():
        _require(all(0 <= seconds <= 3600 for seconds in durations), "a duration")
