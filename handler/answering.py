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

# In the windows; on disk until the state service is back; or nowhere, as was asked for.
Recorded = Literal["stored", "spooled", "dry_run"]

_encode = msgspec.json.Encoder().encode

# A timestamp this large is a date after the year 5000: milliseconds, most likely.
_LOOKS_LIKE_MILLISECONDS = 1e11


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
    if body.future and columns.timestamps.max(initial=0.0) > _LOOKS_LIKE_MILLISECONDS:
        body.hint = "timestamps look like milliseconds; send epoch seconds"
    return Answer(200, _encode(body))


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
