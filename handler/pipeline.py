"""A TorchServe batch of requests -> as many answers: decode, score once, record once.

Knows nothing of TorchServe, so it is tested without it. Whatever happens to one request stays
with that request; what happens to the forward or to the recording happens to those it concerns
and is an answer too, never an exception.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from handler import answering
from handler.answering import Answer, Recorded
from handler.batches import Batch, BatchResult
from handler.delivery import Recording
from handler.errors import RequestError
from handler.events import EventColumns, without_unscorable
from handler.garbage import collector_paused
from handler.identity import ModelIdentity
from handler.logs import fields, shown_ids
from handler.reading import Request, asks_which_model, read_requests
from handler.recording import RecordingError, group_by_events
from handler.scoring import Scorer
from handler.settings import HandlerSettings
from handler.stages import Stages

log = logging.getLogger(__name__)

_MAX_PASSED_HEADER_CHARS = 256  # X-Request-ID and traceparent are passed on up to this length


@dataclass(slots=True)
class _Work:
    """One request that was understood, on its way; `answer` is set once its fate is known."""

    headers: Mapping[str, str]
    dry_run: bool
    key: str
    columns: EventColumns
    scores: NDArray[np.float64]
    encoded_scores: msgspec.Raw | None = None
    answer: Answer | None = None
    recorded: Recorded | None = None

    def encode(self) -> msgspec.Raw:
        """Return the answer's scores, encoded once."""
        if self.encoded_scores is None:
            self.encoded_scores = answering.encode_scores(self.columns, self.scores)
        return self.encoded_scores


class Pipeline:
    """Scores and records batches of requests with one model and one state service."""

    def __init__(
        self,
        settings: HandlerSettings,
        scorer: Scorer,
        delivery: Recording,
        clock: Callable[[], float] = time.time,
        model: ModelIdentity | None = None,
    ) -> None:
        self._settings = settings
        self._scorer = scorer
        self._delivery = delivery
        self._clock = clock
        self._model = model
        self._stages = Stages()
        self._failure: str | None = None  # why the last call to the state service failed

    def process(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer every request, in order. Never raises for anything a client can send."""
        received_at = self._clock()
        with self._stages.measure("decode"):
            opened = self._open(requests)
        works = [item for item in opened if isinstance(item, _Work)]
        with self._stages.measure("score"):
            self._score(works)
        with self._stages.measure("record"):
            self._record([work for work in works if not (work.dry_run or work.answer)], received_at)
        with self._stages.measure("respond"):
            answers = [self._answer(item) for item in opened]
        if log.isEnabledFor(logging.DEBUG):
            for request, item, answer in zip(requests, opened, answers, strict=True):
                _log_answer(request, item, answer)
        return answers

    def _open(self, requests: Sequence[Request]) -> list[_Work | Answer]:
        """Read the requests together, or answer what is wrong with one.

        When reading fails in a way of its own, which is a fault here, each is read alone.
        """
        try:
            with collector_paused():
                read = read_requests(requests, self._settings)
        except Exception:
            if len(requests) > 1:
                return [item for request in requests for item in self._open([request])]
            log.exception("reading a request failed", extra=_ids(requests[0].headers))
            read = [RequestError(500, "internal_error", "the request could not be read")]
        return [
            self._refuse(item, request)
            if isinstance(item, RequestError)
            else _Work(request.headers, item.dry_run, item.key, item.columns, np.empty(0))
            for request, item in zip(requests, read, strict=True)
        ]

    def _refuse(self, error: RequestError, request: Request) -> Answer:
        """Answer what is wrong; a question without events is no error, but which model this is."""
        if self._model is not None and asks_which_model(request):
            return answering.which_model(self._model)
        return self._problem(error, request.headers)

    def _score(self, works: list[_Work]) -> None:
        """Score all requests' events in one forward; when it fails, each request on its own.

        So a request whose events the model cannot take does not fail its neighbours.
        """
        if not works:
            return
        try:
            scores = self._scorer.score(np.concatenate([work.columns.features for work in works]))
        except Exception:
            if len(works) > 1:
                for work in works:
                    self._score([work])
                return
            log.exception("the model failed", extra=_ids(works[0].headers))
            failure = RequestError(503, "scoring_failed", "the model failed; nothing was counted")
            works[0].answer = self._problem(failure, works[0].headers)
            return
        all_finite = bool(np.isfinite(scores).all())
        start = 0
        for work in works:
            work.scores = scores[start : start + len(work.columns.user_ids)]
            start += len(work.scores)
            if not all_finite:
                work.columns, work.scores = without_unscorable(work.columns, work.scores)

    def _record(self, works: list[_Work], received_at: float) -> None:
        """Store all requests' scores in one call (several only beyond its size limit)."""
        deadline = time.monotonic() + self._settings.forward_timeout_seconds
        for group in group_by_events([len(work.scores) for work in works]):
            self._record_together(works[group.start : group.stop], received_at, deadline)

    def _record_together(self, works: list[_Work], received_at: float, deadline: float) -> None:
        """Store in one call; what is refused together is tried one by one, to spare neighbours."""
        batches = [_batch(work, received_at) for work in works]

        def encode() -> None:
            for work in works:
                work.encode()

        try:
            results = self._delivery.record(
                batches, deadline - time.monotonic(), self._stages.take(), encode
            )
        except RecordingError as error:
            if (error.refused or error.invalid) and len(works) > 1:
                for work in works:
                    self._record_together([work], received_at, deadline)
                return
            self._tell(str(error), batches)
            for work in works:
                work.answer = self._not_recorded(work, error)
            return
        except Exception as error:
            # A fault here; what was sent may have been counted.
            log.exception("recording failed", extra=_ids_of(batches))
            for work in works:
                work.answer = self._not_recorded(work, RecordingError(str(error), in_doubt=True))
            return
        self._tell(None)
        for work, result in zip(works, results, strict=True):
            recorded = answering.recorded_as(work.columns, result)
            work.answer = self._prediction(work, recorded, result)

    def _tell(self, failure: str | None, batches: Sequence[Batch] = ()) -> None:
        """Log why recording fails once, not at every batch of a night, and when it works again."""
        if failure is not None and failure != self._failure:
            log.warning(
                "not recorded: %s; told again when the reason changes",
                failure,
                extra=_ids_of(batches),
            )
        elif failure is None and self._failure is not None:
            log.warning("recording works again")
        self._failure = failure

    def _not_recorded(self, work: _Work, error: RecordingError) -> Answer:
        """Answer 503: surely not counted, or perhaps counted, which a retry must not double.

        But 500 where sending it again would not help.
        """
        if error.invalid:
            fault = RequestError(
                500, "internal_error", "the state service does not take what the handler took"
            )
            return self._problem(fault, work.headers)
        if not error.in_doubt:
            refusal = RequestError(
                503, "not_recorded", "not stored, nothing was counted: send it again"
            )
            return self._problem(refusal, work.headers)
        doubt = RequestError(
            503,
            "not_confirmed",
            "it may have been counted: send it again with the header "
            f"Idempotency-Key: {work.key}, and it counts once",
        )
        return self._problem(doubt, work.headers, idempotency_key=work.key)

    def _answer(self, item: _Work | Answer) -> Answer:
        if isinstance(item, Answer):
            return item
        return item.answer or self._prediction(item, "dry_run", None)

    def _prediction(self, work: _Work, recorded: Recorded, result: BatchResult | None) -> Answer:
        work.recorded = recorded
        return answering.prediction(
            work.columns,
            work.encode(),
            recorded=recorded,
            result=result,
            max_errors_listed=self._settings.max_errors_listed,
            request_id=_passed_on(work.headers, "x-request-id"),
        )

    def _problem(
        self, error: RequestError, headers: Mapping[str, str], idempotency_key: str | None = None
    ) -> Answer:
        return answering.problem(
            error,
            self._settings.retry_after_seconds,
            _passed_on(headers, "x-request-id"),
            idempotency_key,
        )


def _batch(work: _Work, received_at: float) -> Batch:
    return Batch(
        key=work.key,
        user_ids=work.columns.user_ids,
        timestamps=work.columns.timestamps,
        scores=work.scores,
        skipped=work.columns.total - len(work.scores),
        received_at=received_at,
        request_id=_passed_on(work.headers, "x-request-id"),
        traceparent=_passed_on(work.headers, "traceparent"),
    )


def _log_answer(request: Request, item: _Work | Answer, answer: Answer) -> None:
    """Tell what became of one request: never a user id."""
    work = item if isinstance(item, _Work) else None
    more = fields(
        **_ids(request.headers)["fields"],
        status=answer.status,
        key=work and work.key,
        recorded=work and work.recorded,
        processed=work and len(work.scores),
        skipped=work and work.columns.total - len(work.scores),
    )
    log.debug("answered", extra=more)


def _ids(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what names a request, for its log messages."""
    return fields(
        request_id=_passed_on(headers, "x-request-id"),
        traceparent=_passed_on(headers, "traceparent"),
    )


def _ids_of(batches: Sequence[Batch]) -> dict[str, Any]:
    return fields(request_ids=shown_ids(batch.request_id for batch in batches))


def _passed_on(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header that travels along, cut to a bounded length; None when absent."""
    value = headers.get(name)
    if not value:
        return None
    passed = value[:_MAX_PASSED_HEADER_CHARS]
    return passed.encode("utf-8", "replace").decode()  # half a surrogate cannot be sent on
