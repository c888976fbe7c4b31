"""Reading request bodies within the limits."""

import asyncio

from aiohttp import HttpVersion11, web

from state_service.app_keys import SERVICE
from state_service.errors import ExpectationError, InvalidRequestError, TooLargeError

UNPACKED = frozenset({"br", "deflate", "gzip", "zstd"})  # by aiohttp, before it hands a body out


async def invite_later(_request: web.Request) -> None:
    """Leave an `Expect: 100-continue` to `invite`: what refuses a head comes before it."""


def invite(request: web.Request) -> None:
    """Refuse a body that says it is over the limit; ask for one that waits to be asked for."""
    limit = request.app[SERVICE].settings.max_body_bytes
    if (request.content_length or 0) > limit:
        raise TooLargeError(f"the body is over {limit} bytes: send several", limit="max_body_bytes")
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.lower() != "100-continue":
        raise ExpectationError(f"cannot do what 'Expect: {expected[:100]}' asks for: leave it out")
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def read_body(request: web.Request) -> bytes:
    """Return the body, bounded in bytes by the application and in number of readers here.

    Raises `InvalidRequestError` when the client goes away or its encoding breaks off,
    `UnavailableError` while the service restores, stops, or has too many in flight.
    """
    service = request.app[SERVICE]
    service.require_ready()
    with service.one_more_in_flight():
        _refuse_other_encodings(request)
        invite(request)
        try:
            async with asyncio.timeout(service.settings.body_timeout_seconds):
                body = await request.read()
        except TimeoutError:
            raise InvalidRequestError(
                f"the body took over {service.settings.body_timeout_seconds:g} seconds",
                "body_timeout",
                limit="body_timeout_seconds",
            ) from None
        except (ConnectionResetError, web.RequestPayloadError) as error:
            reason = " ".join(str(error).split())  # aiohttp's has several lines
            raise InvalidRequestError(f"the body did not arrive whole: {reason}") from None
    service.require_ready()  # it may have begun to stop while the body came in
    return body


def _refuse_other_encodings(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in UNPACKED | {"identity"}:
        raise InvalidRequestError(
            f"'Content-Encoding: {encoding[:100]}' is not read: "
            "send gzip or zstd, or no compression"
        )
