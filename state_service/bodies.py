"""Reading request bodies within the limits."""

import asyncio

from aiohttp import web

from state_service.app_keys import SERVICE
from state_service.errors import InvalidRequestError


async def read_body(request: web.Request) -> bytes:
    """Return the body, bounded in bytes by the application and in number of readers here.

    Raises `InvalidRequestError` when the client goes away or its encoding breaks off,
    `UnavailableError` while the service restores, stops, or has too many in flight.
    """
    service = request.app[SERVICE]
    service.require_ready()
    with service.one_more_in_flight():
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
