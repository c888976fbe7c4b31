"""A TorchServe batch of requests -> as many answers: decode, score once, record once.

Knows nothing of TorchServe, so it is tested without it. Whatever happens to one request stays
with that request; what happens to the forward or to the recording happens to those it concerns
and is an answer too, never an exception.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handler import answering
from handler.answering import Answer
from handler.decoding import EventColumns, EventError, EventShape, decode_json
from handler.errors import RequestError
from handler.recording import Batch, BatchResult, RecordingError, StateClient, group_by_bytes
from handler.scoring import Scorer
from handler.settings import HandlerSettings

log = logging.getLogger(__name__)

_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")
_MAX_PASSED_HEADER_CHARS = 256  # X-Request-ID and traceparent are passed on up to this length


@dataclass(frozen=True, slots=True)
class Request:
    """One client request: its body (None when TorchServe lost it) and lower-case headers."""

    body: bytes | None
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Work:
    """One decoded request on its way; `answer` is set as soon as its fate is known."""

    body_bytes: int
    dry_run: bool
    key: str
    headers: Mapping[str, str]
    columns: EventColumns
    scores: NDArray[np.float64]
    answer: Answer | None = None


class Pipeline:
    """Scores and records batches of requests with one model and one state service."""

    def __init__(
        self,
        settings: HandlerSettings,
        scorer: Scorer,
        state_client: StateClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._scorer = scorer
        self._state_client = state_client
        self._clock = clock
        self._shape = EventShape(settings.features, settings.max_events, settings.max_user_id_bytes)

    def process(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer every request, in order. Never raises for anything a client can send."""
        received_at = self._clock()
        opened = [self._open(request) for request in requests]
        works = [item for item in opened if isinstance(item, _Work)]
        try:
            self._score(works)
            self._record([work for work in works if not work.dry_run], received_at)
        except Exception:
            log.exception("scoring failed")
            failure = RequestError(503, "scoring_failed", "the model failed; nothing was counted")
            for work in works:
                work.answer = work.answer or self._problem(failure, work.headers)
        return [self._answer(item) for item in opened]

    def _open(self, request: Request) -> _Work | Answer:
        """Read one request's headers and events, or answer what is wrong with it."""
        try:
            key = self._idempotency_key(request.headers)
            dry_run = _dry_run(request.headers)
            body = self._body(request)
            columns = decode_json(body, self._shape)
        except RequestError as error:
            return self._problem(error, request.headers)
        except Exception:
            log.exception("decoding failed")
            failure = RequestError(500, "internal_error", "decoding failed")
            return self._problem(failure, request.headers)
        return _Work(len(body), dry_run, key, request.headers, columns, np.empty(0))

    def _body(self, request: Request) -> bytes:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.body is None:
            raise RequestError(
                400,
                "unsupported_content_type",
                "the body did not arrive: add the header Content-Type: application/json",
            )
        if content_type in ("application/x-ndjson", "application/vnd.apache.arrow.stream"):
            raise RequestError(
                400, "unsupported_content_type", f"{content_type}: send application/json instead"
            )
        if not request.body:
            raise RequestError(400, "empty_body", "the body is empty: POST JSON events")
        if len(request.body) > self._settings.max_body_bytes:
            raise RequestError(
                413,
                "body_too_large",
                f"{len(request.body)} bytes; the limit is {self._settings.max_body_bytes}",
            )
        return request.body

    def _idempotency_key(self, headers: Mapping[str, str]) -> str:
        key = headers.get("idempotency-key")
        if key is None:
            return uuid.uuid4().hex
        limit = self._settings.max_idempotency_key_bytes
        if not key or len(key.encode()) > limit:
            raise RequestError(
                400, "invalid_idempotency_key", f"Idempotency-Key must have 1 to {limit} bytes"
            )
        return key

    def _score(self, works: list[_Work]) -> None:
        """Score all requests' events in one forward."""
        if not works:
            return
        scores = self._scorer.score(np.concatenate([work.columns.features for work in works]))
        ends = np.cumsum([len(work.columns.user_ids) for work in works])
        for work, part in zip(works, np.split(scores, ends[:-1]), strict=True):
            work.scores = part
            if not np.isfinite(part).all():
                work.columns, work.scores = _without_unscorable(work.columns, part)

    def _record(self, works: list[_Work], received_at: float) -> None:
        """Store all requests' scores in one call (several only beyond its size limit)."""
        for group in group_by_bytes([work.body_bytes for work in works]):
            members = works[group.start : group.stop]
            try:
                results = self._state_client.record([_batch(work, received_at) for work in members])
            except RecordingError as error:
                log.warning("%d requests not recorded: %s", len(members), error)
                refusal = RequestError(
                    503, "not_recorded", "not stored, nothing was counted: try again"
                )
                for work in members:
                    work.answer = self._problem(refusal, work.headers)
                continue
            for work, result in zip(members, results, strict=True):
                work.answer = self._prediction(work, result)

    def _answer(self, item: _Work | Answer) -> Answer:
        if isinstance(item, Answer):
            return item
        return item.answer or self._prediction(item, None)

    def _prediction(self, work: _Work, result: BatchResult | None) -> Answer:
        return answering.prediction(
            work.columns,
            work.scores,
            result,
            self._settings.max_errors_listed,
            _passed_on(work.headers, "x-request-id"),
        )

    def _problem(self, error: RequestError, headers: Mapping[str, str]) -> Answer:
        request_id = _passed_on(headers, "x-request-id")
        log.debug("answered %d %s, request id %s", error.status, error.code, request_id)
        return answering.problem(error, self._settings.retry_after_seconds, request_id)


def _dry_run(headers: Mapping[str, str]) -> bool:
    value = headers.get("x-dry-run", "").strip().lower()
    if value not in _TRUE + _FALSE:
        raise RequestError(400, "invalid_dry_run", "X-Dry-Run must be 1 or 0")
    return value in _TRUE


def _batch(work: _Work, received_at: float) -> Batch:
    return Batch(
        key=work.key,
        user_id=work.columns.user_ids,
        timestamp=work.columns.timestamps.tolist(),
        score=work.scores.tolist(),
        skipped=work.columns.total - len(work.scores),
        received_at=received_at,
        request_id=_passed_on(work.headers, "x-request-id"),
        traceparent=_passed_on(work.headers, "traceparent"),
    )


def _passed_on(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header that travels along, cut to a bounded length; None when absent."""
    return headers.get(name, "")[:_MAX_PASSED_HEADER_CHARS] or None


def _without_unscorable(
    columns: EventColumns, scores: NDArray[np.float64]
) -> tuple[EventColumns, NDArray[np.float64]]:
    """Drop events whose score is not finite: an infinite score would be in a median for ever."""
    finite = np.isfinite(scores)
    errors = [
        EventError(
            int(index), "features", "score_not_finite", "the model gave no finite score for these"
        )
        for index in columns.positions[~finite]
    ]
    kept = replace(
        columns,
        positions=columns.positions[finite],
        user_ids=[user_id for user_id, keep in zip(columns.user_ids, finite, strict=True) if keep],
        timestamps=columns.timestamps[finite],
        features=columns.features[finite],
        errors=sorted([*columns.errors, *errors], key=lambda error: error.index),
    )
    return kept, scores[finite]
