"""Scored events -> the state service, one request for the whole TorchServe batch.

The connection is kept alive; the call is bounded far below TorchServe's responseTimeout, or the
front end would kill the worker. A batch carries its request's idempotency key, so a client that
sends it again counts it once.
"""

from collections.abc import Iterator, Sequence

import msgspec
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

# The state service takes bodies of 32 MiB. A group holds at most this many bytes of client
# bodies (or one body), which leaves room for scores being longer than what was sent.
MAX_GROUP_BYTES = 16 * 1024 * 1024


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One client request's scored events, as columns of one length."""

    key: str
    user_id: list[str]
    timestamp: list[float]
    score: list[float]
    skipped: int = 0
    received_at: float | None = None  # epoch seconds when the handler got the request
    request_id: str | None = None
    traceparent: str | None = None


class BatchResult(msgspec.Struct, frozen=True):
    """What the state service did with one batch; a duplicate reports its first time's counts."""

    accepted: int
    late: int
    future: int
    duplicate: bool


class _ScoresAnswer(msgspec.Struct):
    batches: list[BatchResult]


class RecordingError(Exception):
    """The batches were not acknowledged; sending them again with the same keys is safe.

    `in_doubt` tells whether they may have been counted all the same; `refused`, whether the
    state service has looked at them and said no, which may be because of one of them.
    """

    def __init__(self, detail: str, *, in_doubt: bool, refused: bool = False) -> None:
        super().__init__(detail)
        self.in_doubt = in_doubt
        self.refused = refused


class StateClient:
    """A kept-alive client of the state service's `POST /scores`."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/scores"
        # No retries here: waiting twice would hold up the whole worker. A connection that a
        # restarted state service has closed is noticed by the pool and opened anew.
        self._pool = urllib3.PoolManager(retries=False)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(_ScoresAnswer).decode

    def record(self, batches: Sequence[Batch], timeout_seconds: float) -> list[BatchResult]:
        """Store the batches, all or none; return a result each. Raises `RecordingError`."""
        if timeout_seconds <= 0:
            raise RecordingError("no time is left to ask the state service", in_doubt=False)
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=self._encode({"batches": batches}),
                headers={"Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=timeout_seconds),
            )
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise RecordingError(
                f"the state service cannot be reached: {error}", in_doubt=False
            ) from error
        except HTTPError as error:
            raise RecordingError(
                f"the state service does not answer: {error}", in_doubt=True
            ) from error
        if response.status != 200:
            # A 4xx or a 503 refuses the whole request; another fault leaves a doubt.
            refused = 400 <= response.status < 500 or response.status == 503
            raise RecordingError(
                f"the state service answered {response.status}: {response.data[:300]!r}",
                in_doubt=not refused,
                refused=refused,
            )
        try:
            results = self._decode(response.data).batches
        except msgspec.DecodeError as error:
            raise RecordingError(
                f"the state service's answer is not understood: {error}", in_doubt=True
            ) from error
        if len(results) != len(batches):
            raise RecordingError(
                f"{len(results)} results for {len(batches)} batches", in_doubt=True
            )
        return results

    def close(self) -> None:
        """Close the kept-alive connection."""
        self._pool.clear()


def group_by_bytes(sizes: Sequence[int], limit: int = MAX_GROUP_BYTES) -> Iterator[range]:
    """Cut a run of sizes into consecutive ranges of at most `limit` bytes, at least one item each.

    >>> list(group_by_bytes([4, 4, 9, 1], limit=8))
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
