"""Pages of the user's own, on another origin: what browsers let them ask and read (CORS).

Closed by default. An origin that `cors_allowed_origins` names may read whatever its page may ask
for; what changes something it may ask for only where a token is needed, which the page has to have.
Nothing is sent along by the browser itself: there are no cookies, and credentials are not allowed.
"""

import re
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from state_service.access import CHANGES, Guard, right_for
from state_service.errors import ForbiddenError
from state_service.problems import Handler
from state_service.settings import Settings, SettingsError

_ORIGIN = re.compile(r"https?://[^/?#@\s,*]+")
_MAY_BE_SENT = (
    "Accept, Authorization, Content-Encoding, Content-Type, Idempotency-Key, traceparent, "
    "tracestate, X-Dry-Run, X-Request-ID"
)
_MAY_BE_READ = "Allow, Retry-After, traceparent, WWW-Authenticate, X-Request-ID"
_PREFLIGHT_SECONDS = "600"


class CrossOrigin:
    """Raises `SettingsError` for what is no origin."""

    def __init__(self, settings: Settings, guard: Guard) -> None:
        given = {name.strip() for name in settings.cors_allowed_origins.split(",")} - {""}
        for name in given:
            if name != "*" and not _ORIGIN.fullmatch(name):
                raise SettingsError(
                    f"STATE_CORS_ALLOWED_ORIGINS (cors_allowed_origins): {name!r} is no origin: "
                    "give a scheme and a host, such as https://dash.example.com, without a path"
                )
        self._origins = frozenset(name.lower() for name in given)
        self._guard = guard

    def middleware(self) -> Middleware:
        """Return what answers preflights: the question that a browser asks before the request."""

        @web.middleware
        async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
            method = request.headers.get("Access-Control-Request-Method")
            if request.method != "OPTIONS" or method is None or not self._allowed(request):
                return await handler(request)
            match = await request.app.router.resolve(request.clone(method=method))
            if match.http_exception is not None:
                raise match.http_exception
            if right_for(method, match) in CHANGES and not self._guard.tokens.required:
                raise ForbiddenError(
                    "a page of another site may not do this: only tokens can let it"
                )
            return web.Response(
                status=HTTPStatus.NO_CONTENT,
                headers={
                    "Access-Control-Allow-Methods": method,
                    "Access-Control-Allow-Headers": _MAY_BE_SENT,
                    "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
                },
            )

        return preflight

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let an allowed origin read an answer, problems included."""
        if not self._origins:
            return
        response.headers.add("Vary", "Origin")
        if self._allowed(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = _MAY_BE_READ

    def _allowed(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin", "")
        return bool(origin) and ("*" in self._origins or origin.lower() in self._origins)
