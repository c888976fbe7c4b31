"""Scored events -> the state service, one request for the whole TorchServe batch.

The body is MessagePack, its number columns raw float64: a third of the time that JSON takes, both
sides together. The call is bounded far below TorchServe's responseTimeout (but for the resolution
of a host's name), or the front end would kill the worker. A batch carries its request's
idempotency key, so a client that sends it again counts it once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from handler.batches import Batch, BatchResult
from handler.connection import Connection, ConnectionBroken, ConnectionRefused, Reply
from handler.identity import ModelIdentity

_CONTENT_TYPE = "application/msgpack"

# Recorded in one call, or one request's when that has more. With the longest user id an event
# takes 275 bytes: the body stays far below the state service's 32 MiB, and its loop is not held up.
MAX_GROUP_EVENTS = 65_536

_NOT_LET_IN = (401, 403, 421)  # whatever was sent: not a fault of the batches, nor of their clients


class _Head(msgspec.Struct, omit_defaults=True):
    """A batch but for its columns: it has the next `events` of those that all share."""

    key: str
    events: int
    skipped: int = 0
    received_at: float | None = None
    request_id: str | None = None
    traceparent: str | None = None


class _ScoresBody(msgspec.Struct):
    batches: list[_Head]
    user_id: list[str]
    timestamp: bytes  # <f8 [events]
    score: bytes  # <f8 [events]
    stages: Mapping[str, Sequence[float]] = {}
    spool: Mapping[str, float | str] | None = None
    model: ModelIdentity | None = None


class _ScoresAnswer(msgspec.Struct):
    batches: list[BatchResult]


class _Problem(msgspec.Struct):
    code: str


_decode_problem = msgspec.json.Decoder(_Problem).decode
_decode_answer = msgspec.json.Decoder(_ScoresAnswer).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_ScoresBody).decode


class RecordingError(Exception):
    """The batches were not acknowledged; sending them again with the same keys is safe.

    `in_doubt` tells whether they may have been counted all the same. `refused` and `invalid` tell
    that the state service has looked at them and said no, perhaps because of one of them: for now,
    or for good, as its limits are not the handler's.
    """

    def __init__(
        self, detail: str, *, in_doubt: bool, refused: bool = False, invalid: bool = False
    ) -> None:
        super().__init__(detail)
        self.in_doubt = in_doubt
        self.refused = refused
        self.invalid = invalid


class StateClient:
    """A kept-alive client of the state service's `POST /scores`."""

    def __init__(
        self, url: str, token: str | None = None, model: ModelIdentity | None = None
    ) -> None:
        """Record at `url`; tell with the scores which `model` gave them."""
        self._model = model
        # No retries here: waiting twice would hold up the whole worker.
        self._connection = Connection(url, token)

    def record(
        self,
        batches: Sequence[Batch],
        timeout_seconds: float,
        stages: Mapping[str, Sequence[float]] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[BatchResult]:
        """Store the batches, all or none; return a result each. Raises `RecordingError`.

        `stages` are durations in seconds by stage, for the state service's metrics. `meanwhile`
        is called while the state service is at work, and not at all when it is not reached.
        """
        body = encode_batches(batches, stages, self._model)
        results = self._post(body, timeout_seconds, meanwhile)
        if len(results) != len(batches):
            raise RecordingError(
                f"{len(results)} results for {len(batches)} batches", in_doubt=True
            )
        return results

    def replay(self, body: bytes, timeout_seconds: float) -> None:
        """Store what `encode_batches` gave once. Raises `RecordingError`."""
        self._post(body, timeout_seconds)

    def report(self, spool: Mapping[str, float | str], timeout_seconds: float) -> None:
        """Tell how the spool is, and learn whether the service is there. Raises as `record`."""
        self._post(_encode(_ScoresBody([], [], b"", b"", spool=spool)), timeout_seconds)

    def _post(
        self, body: bytes, timeout_seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> list[BatchResult]:
        if timeout_seconds <= 0:
            raise RecordingError("no time is left to ask the state service", in_doubt=False)
        try:
            reply = self._connection.post(
                "/scores", body, _CONTENT_TYPE, timeout_seconds, meanwhile
            )
        except ConnectionRefused as error:
            raise RecordingError(
                f"the state service cannot be reached: {error}", in_doubt=False
            ) from error
        except ConnectionBroken as error:
            raise RecordingError(
                f"the state service does not answer: {error}", in_doubt=True
            ) from error
        if reply.status != 200:
            raise _refusal(reply)
        try:
            return _decode_answer(reply.body).batches
        except msgspec.DecodeError as error:
            raise RecordingError(
                f"the state service's answer is not understood: {error}", in_doubt=True
            ) from error

    def close(self) -> None:
        """Close the kept-alive connection."""
        self._connection.close()


def _refusal(reply: Reply) -> RecordingError:
    """Tell what an answer other than 200 means.

    Only the state service's own problem, of a 4xx or a 503, promises that nothing was counted: a
    proxy on the way answers 503 also when the connection broke after the request had gone through.
    """
    try:
        code = _decode_problem(reply.body).code
    except msgspec.DecodeError:
        code = None
    if code is not None and reply.status in _NOT_LET_IN:
        return RecordingError(
            "the state service does not let the handler in; state_token or state_token_file must "
            f"hold its write token: it answered {reply.status}: {reply.body[:300]!r}",
            in_doubt=False,
        )
    invalid = code is not None and 400 <= reply.status < 500
    return RecordingError(
        f"the state service answered {reply.status}: {reply.body[:300]!r}",
        in_doubt=not (invalid or (code is not None and reply.status == 503)),
        refused=reply.status == 503 and code == "capacity",  # the other 503s concern no batch
        invalid=invalid,
    )


def encode_batches(
    batches: Sequence[Batch],
    stages: Mapping[str, Sequence[float]] | None = None,
    model: ModelIdentity | None = None,
) -> bytes:
    """Return the body of a `POST /scores`."""
    heads = [
        _Head(
            batch.key,
            len(batch.user_ids),
            batch.skipped,
            batch.received_at,
            batch.request_id,
            batch.traceparent,
        )
        for batch in batches
    ]
    body = _ScoresBody(
        heads,
        list(chain.from_iterable(batch.user_ids for batch in batches)),
        b"".join(batch.timestamps.astype("<f8", copy=False).tobytes() for batch in batches),
        b"".join(batch.scores.astype("<f8", copy=False).tobytes() for batch in batches),
        stages or {},
        model=model,
    )
    return _encode(body)


def split_batches(body: bytes) -> list[tuple[bytes, int]]:
    """Return what `encode_batches` gave as one body a batch, each with its number of events."""
    whole = _decode_body(body)
    parts = []
    begin = 0
    for head in whole.batches:
        end = begin + head.events
        part = _ScoresBody(
            [head],
            whole.user_id[begin:end],
            whole.timestamp[8 * begin : 8 * end],
            whole.score[8 * begin : 8 * end],
            model=whole.model,
        )
        parts.append((_encode(part), head.events))
        begin = end
    return parts


def group_by_events(sizes: Sequence[int], limit: int = MAX_GROUP_EVENTS) -> Iterator[range]:
    """Cut a run of sizes into consecutive ranges of at most `limit` events, at least one item each.

    >>> list(group_by_events([4, 4, 9, 1], limit=8))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield range(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))
