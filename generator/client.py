"""How aiohttp is used towards both services."""

import io

import aiohttp

_LARGE_BYTES = 2**20


def client_session(
    timeout_seconds: float,
    connections: int,
    token: str | None,
    content_type: str = "application/json",
) -> aiohttp.ClientSession:
    """Open a session that keeps no cookies and never queues below `connections` requests."""
    headers = {"Content-Type": content_type, "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        headers=headers,
    )


def payload(body: bytes) -> bytes | io.BytesIO:
    """Hand a body to aiohttp so that a large one goes out in pieces, not in one long write."""
    return body if len(body) < _LARGE_BYTES else io.BytesIO(body)
