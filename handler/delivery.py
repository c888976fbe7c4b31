"""Scored batches -> the state service or, when it cannot take them, the spool.

Without a spool a failure is the client's to repeat. With one, whoever was scored is recorded:
at once, or as soon as the state service is there again.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from handler.batches import Batch, BatchResult
from handler.breaker import CircuitBreaker
from handler.identity import ModelIdentity
from handler.logs import fields, shown_ids
from handler.recording import RecordingError, encode_batches
from handler.spool import Spool, SpoolError

log = logging.getLogger(__name__)


class Recording(Protocol):
    """What records batches, all or none."""

    def record(
        self,
        batches: Sequence[Batch],
        timeout_seconds: float,
        stages: Mapping[str, Sequence[float]] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Sequence[BatchResult | None]:
        """Return a result each, None for a batch that is spooled. Raises `RecordingError`."""
        ...


class SpooledDelivery:
    """Asks the state service; what it cannot take is spooled."""

    def __init__(
        self,
        client: Recording,
        spool: Spool,
        breaker: CircuitBreaker,
        model: ModelIdentity | None = None,
    ) -> None:
        """Spool with the scores which `model` gave them, as the client tells it."""
        self._client = client
        self._model = model
        self._spool = spool
        self._breaker = breaker

    def record(
        self,
        batches: Sequence[Batch],
        timeout_seconds: float,
        stages: Mapping[str, Sequence[float]] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Sequence[BatchResult | None]:
        """Return a result each, None for all when they are spooled. Raises `RecordingError`."""
        if self._breaker.is_open:
            failure = RecordingError("the state service is away", in_doubt=False)
            return self._keep(batches, failure)
        try:
            return self._client.record(batches, timeout_seconds, stages, meanwhile)
        except RecordingError as error:
            if error.invalid or (error.refused and len(batches) > 1):
                raise  # perhaps because of one of them: the others shall not wait for it
            if not error.refused:
                self._breaker.opens()
                log.warning(
                    "%s; scores are spooled until it is there again",
                    error,
                    extra=fields(request_ids=shown_ids(batch.request_id for batch in batches)),
                )
            return self._keep(batches, error)

    def _keep(self, batches: Sequence[Batch], failure: RecordingError) -> Sequence[None]:
        """Spool the batches. Raises `failure`, with the spool's reason, when that fails too."""
        try:
            body = encode_batches(batches, model=self._model)
            self._spool.put(body, sum(len(item.scores) for item in batches))
        except SpoolError as error:
            raise RecordingError(f"{failure}; {error}", in_doubt=failure.in_doubt) from error
        return [None] * len(batches)
