"""Reading request bodies within the limits."""

from aiohttp import web

from state_service.app_keys import SERVICE


async def read_body(request: web.Request) -> bytes:
    """Return the body, bounded in bytes by the application and in number of readers here.

    Raises `UnavailableError` while the service restores, stops, or has too many in flight.
    """
    service = request.app[SERVICE]
    service.require_ready()
    with service.one_more_in_flight():
        body = await request.read()
    service.require_ready()  # it may have begun to stop while the body came in
    return body
