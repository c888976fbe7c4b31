"""TorchServe's inference address as `POST /ingest` asks it, doing what a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

ANSWER = (
    b'{"processed":1,"skipped":0,"recorded":"stored","late":0,"future":0,'
    b'"scores":[0.01188601553440094],"errors":[]}'
)


async def answer_well(_scorer: "Scorer", _request: web.Request) -> web.StreamResponse:
    return web.Response(body=ANSWER, content_type="application/json")


@dataclass
class Scorer:
    """TorchServe's inference address, as far as a request to it goes."""

    act: Callable[["Scorer", web.Request], Awaitable[web.StreamResponse]] = answer_well
    url: str = ""
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def predict(self, request: web.Request) -> web.StreamResponse:
        self.heads.append(dict(request.headers))
        self.arrived.set()
        self.bodies.append(await request.read())
        return await self.act(self, request)


@contextlib.asynccontextmanager
async def scorer(scorer: Scorer | None = None) -> AsyncIterator[Scorer]:
    """Serve on a free port until the block ends."""
    scorer = scorer or Scorer()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/predictions/scorer", scorer.predict)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        scorer.url = f"http://{host}:{port}"
        yield scorer
    finally:
        scorer.go_on.set()
        await runner.cleanup()


async def never_answer(scorer: Scorer, _request: web.Request) -> web.StreamResponse:
    await scorer.go_on.wait()
    return web.Response()


async def break_off(_scorer: Scorer, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()
