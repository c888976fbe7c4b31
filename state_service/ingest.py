"""`POST /ingest`: one address that does everything. A body goes on to TorchServe as it comes in.

TorchServe scores it and hands the scores to `POST /scores`, as it does with what clients send there
directly; its answer goes back with its status and headers. So a request here is one more hop and
nothing else, and these requests are counted apart from those that record: were they one number,
waiting requests could keep out the very scores that they wait for.

When TorchServe does not answer, the problem says what that means: not reached, so nothing was
counted; or broken off and too late, so only an Idempotency-Key makes it safe to send again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from state_service.access import GUARD
from state_service.app_keys import SERVICE
from state_service.bodies import UNPACKED, invite, invite_later
from state_service.errors import (
    BadGatewayError,
    GatewayTimeoutError,
    InvalidRequestError,
    NotConfiguredError,
    ServiceError,
    TooLargeError,
    UnavailableError,
)
from state_service.settings import Settings
from state_service.torchserve_key import KeyFile

_PATH = "/predictions/scorer"
_CONNECT_SECONDS = 5.0
_LOOK_FOR_CLIENT_SECONDS = 0.5
# TorchServe reads a socket twice for each header: only those that mean something to it go on.
_TO_TORCHSERVE = (
    "Accept",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Idempotency-Key",
    "traceparent",
    "tracestate",
    "X-Dry-Run",
    "X-Request-ID",
)
# What an answer means. The rest is for one connection, or what this service says in its own way:
# who may keep the answer, and which pages may read it.
_TO_CLIENT = (
    "Content-Encoding",
    "Content-Type",
    "Retry-After",
    "traceparent",
    "WWW-Authenticate",
    "X-Request-ID",
)


class Ingest:
    """The way to one TorchServe. `in_flight` requests are on it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.torchserve_url.rstrip("/") + _PATH
        self._key_file = KeyFile(settings.torchserve_key_file)
        self._session: aiohttp.ClientSession | None = None
        self.in_flight = 0

    @contextlib.asynccontextmanager
    async def connections(self) -> AsyncIterator[None]:
        """Keep connections to TorchServe until the block ends."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.max_ingests_in_flight),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        ) as self._session:
            yield

    async def hand_on(self, request: web.Request) -> web.Response:
        """Return TorchServe's answer. Raises a `ServiceError` where there is none."""
        if not self._settings.torchserve_url:
            raise NotConfiguredError(
                "this service does not know where TorchServe is: set torchserve_url "
                "(STATE_TORCHSERVE_URL) to its inference address, such as http://127.0.0.1:8080, "
                "or send to that address yourself"
            )
        if request.app[SERVICE].phase == "stopping":
            raise UnavailableError("stopping", "stopping")
        body = _Body(request, self._settings)
        with self._one_more():
            asking = asyncio.create_task(self._ask(request, body))
            try:
                while not asking.done() and not _is_gone(request):
                    await asyncio.wait({asking}, timeout=_LOOK_FOR_CLIENT_SECONDS)
                if not asking.done():  # nobody waits for the answer any more
                    return web.Response(status=499, reason="Client Closed Request")
                return asking.result()
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, ServiceError):
                    await asking

    async def _ask(self, request: web.Request, body: "_Body") -> web.Response:
        assert self._session is not None
        seconds = self._settings.ingest_timeout_seconds
        sent = self._session.post(
            self._url, data=body.chunks(), headers=self._headers(request), allow_redirects=False
        )
        try:
            async with asyncio.timeout(body.seconds + seconds) as end:
                body.then = lambda: end.reschedule(asyncio.get_running_loop().time() + seconds)
                async with sent as answer:
                    return await self._answered(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnavailableError(
                "TorchServe cannot be reached, nothing was counted: send it again, and look at its "
                "log if this goes on",
                "torchserve_away",
            ) from error
        except TimeoutError as error:
            raise body.error or GatewayTimeoutError(
                f"TorchServe did not answer within {seconds:g} seconds; {_what_was_counted(body)}",
                limit="ingest_timeout_seconds",
            ) from error
        except aiohttp.ClientError as error:
            raise body.error or BadGatewayError(
                f"TorchServe broke off; {_what_was_counted(body)}"
            ) from error

    async def _answered(self, answer: aiohttp.ClientResponse) -> web.Response:
        limit = self._settings.max_body_bytes
        parts = bytearray()
        async for part in answer.content.iter_any():
            parts += part
            if len(parts) > limit:
                raise BadGatewayError(
                    f"TorchServe's answer is over {limit} bytes (max_body_bytes): what was sent "
                    "may have been counted",
                    limit="max_body_bytes",
                )
        headers = CIMultiDict(
            (name, value) for name in _TO_CLIENT for value in answer.headers.getall(name, ())
        )
        return web.Response(status=answer.status, body=bytes(parts), headers=headers)

    def _headers(self, request: web.Request) -> CIMultiDict[str]:
        """Return the headers that go on.

        TorchServe's key is shown only for a client that has shown a token; one that needed none has
        to show TorchServe's key itself, or this would be a way around it.

        Raises `InvalidRequestError` for a value that cannot go on as it came.
        """
        headers: CIMultiDict[str] = CIMultiDict(
            (name, value) for name in _TO_TORCHSERVE for value in request.headers.getall(name, ())
        )
        # What has been unpacked by now goes on so, and longer. The rest is for the scorer to judge.
        if headers.get("Content-Encoding", "").lower() in UNPACKED:
            del headers["Content-Encoding"]
            headers.popall("Content-Length", None)
        if request.app[GUARD].tokens.required:
            key = self._key_file.inference_key()
            given = [] if key is None else [f"Bearer {key}"]
        else:
            given = request.headers.getall("Authorization", [])
        headers.extend(("Authorization", value) for value in given)
        for name, value in headers.items():
            if not _is_text(value):
                raise InvalidRequestError(
                    f"the header {name} has bytes that are not UTF-8, and would not reach "
                    "TorchServe as they are: write it in ASCII"
                )
        return headers

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        limit = self._settings.max_ingests_in_flight
        if self.in_flight >= limit:
            raise UnavailableError(
                f"{limit} requests are on their way to TorchServe: the limit "
                "(max_ingests_in_flight)",
                "busy",
                limit="max_ingests_in_flight",
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


INGEST = web.AppKey("INGEST", Ingest)


def add_ingest(app: web.Application, ingest: Ingest) -> None:
    """Serve `POST /ingest`."""
    app[INGEST] = ingest
    app.cleanup_ctx.append(_connected)
    app.router.add_post("/ingest", post_ingest, expect_handler=invite_later)


async def post_ingest(request: web.Request) -> web.Response:
    """Hand a request on to TorchServe and its answer back."""
    return await request.app[INGEST].hand_on(request)


async def _connected(app: web.Application) -> AsyncIterator[None]:
    async with app[INGEST].connections():
        yield


@dataclass(slots=True)
class _Body:
    """A request's body on its way.

    `whole` once it has all been handed on, and `then` is called; `error` says why it broke off.
    """

    request: web.Request
    settings: Settings
    error: ServiceError | None = None
    whole: bool = False
    then: Callable[[], None] = lambda: None

    @property
    def seconds(self) -> float:
        """How long it may take to come in."""
        return self.settings.body_timeout_seconds

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it as it comes. Whoever sends it on ends without its end when it breaks off."""
        try:
            async for chunk in self._bounded():
                yield chunk
        except ServiceError as error:
            self.error = error
            raise
        self.whole = True
        self.then()

    async def _bounded(self) -> AsyncIterator[bytes]:
        invite(self.request)
        content, limit = self.request.content, self.settings.max_body_bytes
        time, left_seconds = asyncio.get_running_loop().time, self.seconds
        size = self.request.content_length or 0
        received = 0
        while max(size, received) <= limit:
            asked_at = time()
            try:
                async with asyncio.timeout(left_seconds):
                    chunk = await content.readany()
            except TimeoutError:
                raise InvalidRequestError(
                    f"the body took over {self.seconds:g} seconds; nothing was counted",
                    "body_timeout",
                    limit="body_timeout_seconds",
                ) from None
            except (ConnectionResetError, web.RequestPayloadError, aiohttp.ClientError) as error:
                reason = " ".join(str(error).split())
                raise InvalidRequestError(f"the body did not arrive whole: {reason}") from None
            left_seconds -= time() - asked_at  # and not while TorchServe takes what there is
            if not chunk:
                return
            received += len(chunk)
            if received <= limit:
                yield chunk
        raise TooLargeError(f"the body is over {limit} bytes: send several", limit="max_body_bytes")


def _is_text(value: str) -> bool:
    """Tell whether a header's bytes were UTF-8: of others, what is sent on would be a part."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _what_was_counted(body: _Body) -> str:
    if not body.whole:
        return "it did not have all of the body, so nothing was counted: send it again"
    if body.request.headers.get("Idempotency-Key"):
        return (
            "whether it was counted is not known: send it again under the same Idempotency-Key, "
            "and it counts once"
        )
    return (
        "whether it was counted is not known, and sent again it may count twice: with an "
        "Idempotency-Key it would count once"
    )
