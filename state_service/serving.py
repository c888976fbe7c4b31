"""aiohttp's runner, but for its own errors: a head that its parser refuses gets a problem as well.

Such a request reaches no middleware: it has no route, and often no address. aiohttp would answer it
in plain text, under its own name and version.
"""

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from state_service.errors import reason_phrase
from state_service.headers import complete

_MAX_REASON_CHARS = 200


class Runner(web.AppRunner):
    """Runs an application whose connections are ours."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            loop=made._loop,  # noqa: SLF001 - aiohttp has no public way to its connections
            **made._kwargs,  # noqa: SLF001
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return a problem instead of aiohttp's page, which is made all the same: it logs."""
        super().handle_error(request, status, exc, message)
        return refused_head(status, message or "")


def refused_head(status: int, message: str) -> web.Response:
    """Return what is answered where there is no request to speak of."""
    reason = " ".join(message.split())[:_MAX_REASON_CHARS]
    detail = f"the head of the request is not HTTP/1.1 as this service reads it: {reason}"
    body = {
        "type": "about:blank",
        "title": reason_phrase(status),
        "status": status,
        "code": "invalid_request" if status < 500 else "internal_error",
        "detail": detail if status < 500 else "the service failed; its log says why",
    }
    response = web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json"
    )
    complete(response)
    response.force_close()
    return response
