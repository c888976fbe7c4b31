"""The load: a client that takes no for an answer, asks again, and keeps book.

Each request has a key of its own and is sent again, the same bytes under the same key, until it is
answered 200. Whatever else comes (an error, a reset, silence) says nothing about whether it counts.
"""

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import msgspec

from chaos.book import Book, Request
from generator.errors import why

_BACK_OFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
_WRONG_ANSWERS_KEPT = 10
# Not ready, overloaded, a worker died; 404 is TorchServe before it has loaded the model.
_TRY_AGAIN = {404, 408, 429, 500, 502, 503, 504, 507}


class _Prediction(msgspec.Struct):
    processed: int
    recorded: str
    scores: list[float | None]
    late: int
    future: int


_decode = msgspec.json.Decoder(_Prediction).decode


@dataclass(slots=True)
class Tally:
    """What the load has seen; `attempts_failed` by status or error, `recorded` by its word."""

    requests: int = 0
    acknowledged: int = 0
    retries: int = 0
    attempts_failed: Counter[str] = field(default_factory=Counter)
    recorded: Counter[str] = field(default_factory=Counter)
    wrong_answers: int = 0
    examples: list[str] = field(default_factory=list)
    longest_outage_seconds: float = 0.0
    round_outage_seconds: float = 0.0  # the longest since somebody set it to 0
    acknowledged_at: float = -math.inf  # monotonic, the last time

    def acknowledge(self, recorded: str, now: float) -> None:
        """Note an answer of 200 at `now`, monotonic."""
        if self.acknowledged:
            gap = now - self.acknowledged_at
            self.round_outage_seconds = max(self.round_outage_seconds, gap)
            self.longest_outage_seconds = max(self.longest_outage_seconds, gap)
        self.acknowledged += 1
        self.acknowledged_at = now
        self.recorded[recorded] += 1

    def complain(self, sentence: str) -> None:
        """Note an answer that is not what it must be."""
        self.wrong_answers += 1
        if len(self.examples) < _WRONG_ANSWERS_KEPT:
            self.examples.append(sentence)


class Load:
    """Sends requests from `book` at a pace, with at most `senders` of them under way.

    `catch_up_seconds` is how far the pace may fall behind and be made good: 0 for senders that go
    on where they are after an outage, infinite for a constant rate.
    """

    def __init__(  # noqa: PLR0913 - what the load is made of
        self,
        session: aiohttp.ClientSession,
        url: str,
        book: Book,
        *,
        requests_per_second: float,
        senders: int,
        catch_up_seconds: float,
        run: str,
    ) -> None:
        self.tally = Tally()
        self._session, self._url, self._book = session, url, book
        self._interval = 1 / requests_per_second
        self._senders, self._catch_up = senders, catch_up_seconds
        self._run = run
        self._next_due = 0.0
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Begin no more requests; those that are under way go on."""
        self._stopped.set()

    async def run(self) -> None:
        """Send until `stop`, then until everything is acknowledged. Cancel it to give up."""
        self._next_due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._senders):
                group.create_task(self._send())

    async def _send(self) -> None:
        while not self._stopped.is_set():
            due = max(self._next_due, time.monotonic() - self._catch_up)
            self._next_due = due + self._interval
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if not self._stopped.is_set():
                await self._deliver(self._book.issue(time.time()))

    async def _deliver(self, request: Request) -> None:
        tally = self.tally
        tally.requests += 1
        headers = {"Idempotency-Key": f"{self._run}-{request.number}"}
        attempt = 0
        while not await self._attempt(request, headers):
            tally.retries += 1
            pause = _BACK_OFF_SECONDS[min(attempt, len(_BACK_OFF_SECONDS) - 1)]
            # Multiples of the golden ratio keep neighbours that failed together apart.
            await asyncio.sleep(pause * (0.5 + request.number * 0.618033988749895 % 1.0))
            attempt += 1

    async def _attempt(self, request: Request, headers: dict[str, str]) -> bool:
        """Send it once; return whether it was answered 200."""
        tally = self.tally
        try:
            async with self._session.post(
                self._url, data=request.body, headers=headers
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            tally.attempts_failed[why(error)] += 1
            return False
        if response.status != 200:
            tally.attempts_failed[str(response.status)] += 1
            if response.status not in _TRY_AGAIN:
                tally.complain(f"request {request.number}: {response.status} {answer[:300]!r}")
            return False
        self._check(request, answer)
        return True

    def _check(self, request: Request, answer: bytes) -> None:
        """Look at a 200 and keep book."""
        try:
            prediction = _decode(answer)
        except msgspec.DecodeError as error:
            self.tally.complain(f"request {request.number}: {error}: {answer[:300]!r}")
            return
        self._book.acknowledge(request.number)
        self.tally.acknowledge(prediction.recorded, time.monotonic())
        if prediction.recorded not in {"stored", "spooled"}:
            self.tally.complain(f"request {request.number}: recorded {prediction.recorded}")
        if prediction.late or prediction.future or prediction.processed != len(request.scores):
            self.tally.complain(f"request {request.number}: {prediction}")
        if prediction.scores != request.scores.tolist():
            self.tally.complain(f"request {request.number}: other scores than the model's")
