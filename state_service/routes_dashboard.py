"""The live page at `/`, its files, its streams of server-sent events, and the page without script.

The page itself holds no data: its scripts read the streams, and show a token where one is needed.
Nothing in it is inline and nothing comes from elsewhere, so that its policy can forbid both.
"""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from aiohttp import web

from state_service.app_keys import CENSUS, EVERYBODY, SERVICE
from state_service.census import Census
from state_service.checks import check_user_id
from state_service.errors import InvalidRequestError
from state_service.everybody import Everybody
from state_service.listing import read_limit
from state_service.overview_page import render_overview
from state_service.parameters import read_window_question
from state_service.ticking import Ticker
from state_service.torchserve_status import TorchServe
from state_service.viewers import Subject, Viewers, Watched, event
from state_service.watching import user_view

VIEWERS = web.AppKey("VIEWERS", Viewers)
TICKER = web.AppKey("TICKER", Ticker)
FILES = web.AppKey("FILES", dict[str, Path])

_FOLDER = Path(__file__).with_name("dashboard")
# The package is found, not imported: of it, only the charts' script and style are wanted.
_CHARTS = ("uplot.iife.min.js", "uplot.min.css")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_MOST_EVENTS = 1_000_000


def add_dashboard(app: web.Application) -> None:
    """Serve the page and what it needs; tick as long as the application runs."""
    app[VIEWERS] = Viewers(app[SERVICE].settings.max_viewers)
    app[EVERYBODY] = Everybody(app[SERVICE])
    app[CENSUS] = Census(app[SERVICE], app[EVERYBODY])
    app.cleanup_ctx.append(_ticking)
    app.on_shutdown.append(_end_streams)
    app.router.add_get("/", get_page)
    files = [*_FOLDER.iterdir(), *(_charts_folder() / name for name in _CHARTS)]
    app[FILES] = {path.name: path for path in files}
    app.router.add_get("/dashboard/{name}", get_file)
    app.router.add_get("/overview", get_overview)
    app.router.add_get("/events", get_events)


async def get_overview(request: web.Request) -> web.Response:
    """Answer the page as plain tables, for browsers without scripts and for terminals."""
    service = request.app[SERVICE]
    user = None
    if "user_id" in request.query and service.phase == "ready":
        user_id = request.query["user_id"]
        check_user_id(user_id, service.settings)
        user = await user_view(service, Watched(user_id, None))
    page = render_overview(await request.app[TICKER].full_overview(), user)
    return web.Response(
        text=page, content_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )


async def get_events(request: web.Request) -> web.StreamResponse:
    """Stream the service's numbers each second, or one user's window.

    `limit` ends the stream after so many events.
    """
    service, ticker, viewers = request.app[SERVICE], request.app[TICKER], request.app[VIEWERS]
    subject, limit = _read_question(request.query, request)
    with viewers.one_more(subject, request.transport) as viewer:
        if subject is None:
            first = event("history", ticker.history()) + event("overview", await ticker.overview())
        else:
            first = event("user", await user_view(service, subject, with_trail=True))
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",  # or nginx and its kin hold events back
            }
        )
        with contextlib.suppress(ConnectionResetError):  # a viewer leaves without a word
            await response.prepare(request)
            await response.write(first)
            for _ in range(limit - 1):
                message = await viewer.messages.get()
                if message is None:
                    break
                await response.write(message)
            await response.write_eof()
    return response


def _read_question(query: Mapping[str, str], request: web.Request) -> tuple[Subject, int]:
    """Return what is to be watched, and for how many events."""
    settings = request.app[SERVICE].settings
    limit = read_limit(query, _MOST_EVENTS, _MOST_EVENTS)
    if "user_id" not in query:
        if "window" in query:
            raise InvalidRequestError("window is of a user: name one with user_id")
        return None, limit
    check_user_id(query["user_id"], settings)
    window = read_window_question(query, settings).window
    return Watched(query["user_id"], window), limit


async def _ticking(app: web.Application) -> AsyncIterator[None]:
    """Take readings from the start on."""
    async with TorchServe(app[SERVICE].settings) as torchserve:
        ticker = Ticker(app[SERVICE], app[VIEWERS], torchserve, app[EVERYBODY], app[CENSUS])
        app[TICKER] = ticker
        task = asyncio.create_task(ticker.run())
        yield
        ticker.stop()
        await task


async def _end_streams(app: web.Application) -> None:
    """End them before requests in flight are waited for: they would never end by themselves."""
    app[TICKER].stop()


def _charts_folder() -> Path:
    spec = importlib.util.find_spec("youplot")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "vendor"


async def get_page(_request: web.Request) -> web.FileResponse:
    """Answer the page."""
    return _file(_FOLDER / "index.html")


async def get_file(request: web.Request) -> web.FileResponse:
    """Answer one of the page's files: those there were at the start, and no other."""
    if (path := request.app[FILES].get(request.match_info["name"])) is None:
        raise web.HTTPNotFound
    return _file(path)


def _file(path: Path) -> web.FileResponse:
    """Return a file which browsers keep but ask about."""
    return web.FileResponse(
        path, headers={"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    )
