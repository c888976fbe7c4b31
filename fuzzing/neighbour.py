"""A client as it should be, beside the hostile ones: its answers must be exact, all the time."""

import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import msgspec

_PAUSE_SECONDS = 0.02


@dataclass
class Watch:
    """What the client saw."""

    rounds: int = 0
    slowest_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def neighbour(scorer_url: str | None, state_url: str) -> AsyncIterator[Watch]:
    """Send events of users of its own and ask for their medians until the block ends.

    With `scorer_url` None it posts scores to the state service itself.
    """
    watch = Watch()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        client = _Client(session, scorer_url, state_url, watch)
        task = asyncio.create_task(client.run())
        try:
            yield watch
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@dataclass
class _Client:
    session: aiohttp.ClientSession
    scorer_url: str | None
    state_url: str
    watch: Watch
    random: Random = field(default_factory=lambda: Random(3))  # noqa: S311 - no secret

    async def run(self) -> None:
        while True:
            started = time.monotonic()
            try:
                await self._round()
            except (aiohttp.ClientError, TimeoutError, LookupError, msgspec.MsgspecError) as error:
                self.watch.faults.append(f"{type(error).__name__}: {error}")
            self.watch.rounds += 1
            seconds = time.monotonic() - started
            self.watch.slowest_seconds = max(self.watch.slowest_seconds, seconds)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _round(self) -> None:
        user = f"neighbour-{uuid.uuid4().hex}"
        scores: list[float] = []
        for _ in range(3):
            scores += await self._record(user, self.random.randrange(1, 5))
        body = await self._ask("GET", f"{self.state_url}/users/{user}/median")
        expected = (statistics.median(scores), len(scores))
        if (body["median"], body["count"]) != expected:
            self.watch.faults.append(f"{body['median']}, {body['count']} instead of {expected}")

    async def _record(self, user: str, count: int) -> list[float]:
        now = time.time()
        if self.scorer_url is None:
            drawn = [self.random.random() for _ in range(count)]
            columns = {"user_id": [user] * count, "timestamp": [now] * count, "score": drawn}
            body = {"batches": [{"key": uuid.uuid4().hex, **columns}]}
            answer = await self._ask("POST", f"{self.state_url}/scores", body)
            return drawn if answer["accepted"] == count else []
        events = [
            {"user_id": user, "timestamp": now, "features": [self.random.random() for _ in "abc"]}
            for _ in range(count)
        ]
        answer = await self._ask(
            "POST", f"{self.scorer_url}/predictions/scorer", {"events": events}
        )
        if answer["recorded"] != "stored" or answer["skipped"]:
            self.watch.faults.append(f"not stored: {answer}")
        scores: list[float] = answer["scores"]
        return scores

    async def _ask(self, method: str, url: str, body: object = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = msgspec.json.encode(body) if body is not None else None
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise LookupError(f"{method} {url}: {answer.status} {text[:200]!r}")
            return msgspec.json.decode(text, type=dict[str, Any])
