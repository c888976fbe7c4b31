"""The two services the generator talks to, played by one real aiohttp server on port 0.

A plain dict of lists and `statistics.median`; faults and distortions are plugged in by the test.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pyarrow as pa
from aiohttp import web

from generator.options import RunOptions
from generator.workload import WorkloadOptions

Fault = Literal[
    "none", "unavailable", "drop before", "drop after", "full", "refuse", "spool", "stall"
]


@dataclass
class FakeServices:
    """`fault(n)` decides the fate of attempt n (from 0); `distort(item)` edits a median item."""

    fault: Callable[[int], Fault] = lambda _: "none"
    distort: Callable[[dict[str, Any]], None] = lambda _: None
    skip_every: int = 0
    window_seconds: float = 3600.0
    stall_seconds: float = 0.3
    url: str = ""
    attempts: int = 0
    attempted: asyncio.Event = field(default_factory=asyncio.Event)
    notify_at_attempt: int = 0
    dry_runs: int = 0
    median_requests: int = 0
    median_stall_seconds: float = 0
    verifying: asyncio.Event = field(default_factory=asyncio.Event)
    instants: set[float | None] = field(default_factory=set)
    authorizations: set[str] = field(default_factory=set)
    content_types: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    counted: set[str] = field(default_factory=set)
    events: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    in_progress: int = 0
    most_in_progress: int = 0

    async def score(self, request: web.Request) -> web.StreamResponse:
        self._note_token(request)
        body = await request.read()
        self.content_types.add(request.content_type)
        events = _events(request.content_type, body)
        if "X-Dry-Run" in request.headers:
            self.dry_runs += 1
            return self._answer(events, "dry_run")
        attempt, self.attempts = self.attempts, self.attempts + 1
        if self.attempts == self.notify_at_attempt:
            self.attempted.set()
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        self.bodies.append(body)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            return await self._fate(request, self.fault(attempt), key, events)
        finally:
            self.in_progress -= 1

    async def _fate(
        self, request: web.Request, fault: Fault, key: str, events: list[dict[str, Any]]
    ) -> web.StreamResponse:
        if fault == "unavailable":
            return _problem(503, "spool_full", {"Retry-After": "0"})
        if fault == "refuse":
            return _problem(413, "too_many_events", {})
        if fault == "stall":
            await asyncio.sleep(self.stall_seconds)
        if fault != "drop before":
            self._count(key, events)
        if fault == "full":
            return _problem(507, "disk_full", {})
        if fault.startswith("drop"):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return self._answer(events, "spooled" if fault == "spool" else "stored")

    def _note_token(self, request: web.Request) -> None:
        if token := request.headers.get("Authorization"):
            self.authorizations.add(f"{request.path} {token}")

    def _score(self, index: int, event: dict[str, Any]) -> float | None:
        if self.skip_every and index % self.skip_every == self.skip_every - 1:
            return None
        return float(event["features"][0] * 0.3 + event["features"][1])

    def _count(self, key: str, events: list[dict[str, Any]]) -> None:
        if key in self.counted:
            return
        self.counted.add(key)
        for index, event in enumerate(events):
            score = self._score(index, event)
            if score is not None:
                self.events.setdefault(event["user_id"], []).append((event["timestamp"], score))

    def _answer(self, events: list[dict[str, Any]], recorded: str) -> web.Response:
        scores = [self._score(index, event) for index, event in enumerate(events)]
        skipped = scores.count(None)
        answer = {
            "processed": len(scores) - skipped,
            "skipped": skipped,
            "recorded": recorded,
            "late": 0,
            "future": 0,
            "scores": scores,
            "errors": [],
        }
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def medians(self, request: web.Request) -> web.Response:
        self._note_token(request)
        asked = msgspec.json.decode(await request.read())
        self.instants.add(asked.get("at"))
        if "at" in asked:
            self.verifying.set()
            await asyncio.sleep(self.median_stall_seconds)
        at = asked.get("at", time.time())
        self.median_requests += 1
        items = []
        for user_id in asked["user_ids"]:
            kept = [e for e in self.events.get(user_id, []) if e[0] >= at - self.window_seconds]
            item = {
                "user_id": user_id,
                "median": statistics.median(s for _, s in kept) if kept else None,
                "count": len(kept),
                "window_seconds": self.window_seconds,
                "newest_timestamp": max((t for t, _ in kept), default=None),
            }
            self.distort(item)
            items.append(item)
        return web.Response(
            body=msgspec.json.encode({"items": items}), content_type="application/json"
        )


def _events(content_type: str, body: bytes) -> Any:
    if content_type == "application/x-ndjson":
        return msgspec.json.Decoder().decode_lines(body)
    if content_type == "application/vnd.apache.arrow.stream":
        return pa.ipc.open_stream(body).read_all().to_pylist()
    return msgspec.json.decode(body)["events"]


def _problem(status: int, code: str, headers: dict[str, str]) -> web.Response:
    response = web.Response(
        status=status,
        body=msgspec.json.encode({"code": code, "detail": "as the test wants it"}),
        content_type="application/problem+json",
        headers=headers,
    )
    response.force_close()
    return response


@contextlib.asynccontextmanager
async def serving(services: FakeServices) -> AsyncIterator[FakeServices]:
    """Serve on a free port; `services.url` is both services' address."""
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/predictions/scorer", services.score)
    app.router.add_post("/medians", services.medians)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    services.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield services
    finally:
        await runner.cleanup()


def small_run(services: FakeServices) -> RunOptions:
    """Ask for 50 requests of 10 events in half a second, verified."""
    return RunOptions(
        url=services.url,
        state_url=services.url,
        rate=1000,
        duration_seconds=0.5,
        workload=WorkloadOptions(seed=0, users=50, batch=10, user_prefix="p"),
        verify=True,
        json_file=None,
        max_in_flight=256,
        retries=3,
        timeout_seconds=10,
        drain_seconds=30,
        token=None,
        state_token=None,
        quiet=True,
    )


@dataclass(frozen=True)
class Ended:
    """How a `python -m generator` process ended."""

    code: int
    out: str
    err: str


async def start_generator(
    *arguments: str, stderr: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    """Start `python -m generator`, its stdout (and stderr, unless told) a pipe."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "generator",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


async def generate(*arguments: str) -> Ended:
    """Run `python -m generator` to its end."""
    process = await start_generator(*arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
