"""Connections on which no request arrives are closed: each takes a file descriptor of the process.

aiohttp bounds the time from an answer to the next request's head (`KEEP_ALIVE_SECONDS`), `bodies`
the time that a body takes. Here it is the time from the connection to the first head: a client that
sends a byte of it a minute would hold a connection for ever, and a thousand shut everybody out.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

KEEP_ALIVE_SECONDS = 75.0  # nginx's; the handler's own connection is never idle for so long

HEARD = web.AppKey("HEARD", set[RequestHandler])  # connections that a request has come from

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def note_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note that a head has arrived."""
    request.app[HEARD].add(request.protocol)
    return await handler(request)


@contextlib.asynccontextmanager
async def silent_ones_closed(
    server: web.Server, heard: set[RequestHandler], seconds: float
) -> AsyncIterator[None]:
    """Until the block ends, close connections whose first request's head takes longer than this.

    Takes out of `heard` those that are gone.
    """
    task = asyncio.create_task(_close_silent_ones(server, heard, seconds))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _close_silent_ones(
    server: web.Server, heard: set[RequestHandler], seconds: float
) -> None:
    since: dict[RequestHandler, float] = {}
    while True:
        await asyncio.sleep(min(1.0, seconds))
        now = time.monotonic()
        here = set(server.connections)
        heard &= here
        since = {connection: since.get(connection, now) for connection in here - heard}
        for connection, first in since.items():
            if now - first >= seconds:
                connection.force_close()
