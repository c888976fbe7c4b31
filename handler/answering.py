"""What happened to one request -> status, headers and body bytes. Pure.

The client's X-Request-ID is echoed inside the body: TorchServe overwrites a header of that name
with an id of its own.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from handler.batches import BatchResult
from handler.errors import RequestError
from handler.events import EventColumns, EventError
from handler.identity import ModelIdentity
from handler.units import hint_of_future, hint_of_late

# In the windows; on disk until the state service is back; nowhere, as no event was fit to be kept;
# nowhere, as was asked for.
Recorded = Literal["stored", "spooled", "nothing", "dry_run"]

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = {}


class _Prediction(msgspec.Struct, omit_defaults=True):
    """The 200 body; field by field in openapi.yaml."""

    processed: int
    skipped: int
    recorded: Recorded
    late: int
    future: int
    scores: msgspec.Raw
    errors: list[EventError]
    errors_truncated: bool = False
    duplicate: bool = False
    hint: str | None = None
    request_id: str | None = None


def encode_scores(columns: EventColumns, scores: NDArray[np.float64]) -> msgspec.Raw:
    """Return a prediction's `scores` as JSON: aligned with the request's events, null if skipped.

    The larger part of an answer, and known before it is known what becomes of the scores.
    """
    aligned: list[float | None]
    if len(scores) == columns.total:
        aligned = scores.tolist()
    else:
        aligned = [None] * columns.total
        for position, score in zip(columns.positions.tolist(), scores.tolist(), strict=True):
            aligned[position] = score
    return msgspec.Raw(_encode(aligned))


def recorded_as(columns: EventColumns, result: BatchResult | None) -> Recorded:
    """Say what became of a request that was delivered; without a `result` it is spooled.

    A repeat under a known key has the first time's counts, so it is called what that was.
    """
    if not columns.user_ids or (result is not None and not result.accepted):
        return "nothing"
    return "spooled" if result is None else "stored"


def prediction(  # noqa: PLR0913 - the parts of one answer
    columns: EventColumns,
    scores: msgspec.Raw,
    *,
    recorded: Recorded,
    result: BatchResult | None,
    max_errors_listed: int,
    request_id: str | None = None,
) -> Answer:
    """Answer 200 with what `encode_scores` gave; a `result` has only what is stored by now."""
    processed = len(columns.user_ids)
    body = _Prediction(
        processed=processed,
        skipped=columns.total - processed,
        recorded=recorded,
        late=0 if result is None else result.late,
        future=0 if result is None else result.future,
        scores=scores,
        errors=columns.errors[:max_errors_listed],
        errors_truncated=len(columns.errors) > max_errors_listed,
        duplicate=result is not None and result.duplicate,
        request_id=request_id,
    )
    if body.future:
        body.hint = hint_of_future(columns.timestamps.max(initial=0.0))
    elif body.late:
        body.hint = hint_of_late(columns.timestamps.min(initial=np.inf))
    return Answer(200, _encode(body))


def which_model(model: ModelIdentity) -> Answer:
    """Answer 200 with what tells this model from another."""
    return Answer(200, _encode(model))


def problem(
    error: RequestError,
    retry_after_seconds: int,
    request_id: str | None = None,
    idempotency_key: str | None = None,
) -> Answer:
    """Answer an RFC 9457 problem; a 503 says when to come back, and under which key if it must."""
    body: dict[str, str | int] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
    }
    if request_id:
        body["request_id"] = request_id
    if idempotency_key:
        body["idempotency_key"] = idempotency_key
    headers = {"Retry-After": str(retry_after_seconds)} if error.status == 503 else {}
    return Answer(error.status, _encode(body), "application/problem+json", headers)
