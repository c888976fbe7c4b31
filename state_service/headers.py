"""What every answer tells browsers: keep nothing, guess nothing, lend nothing to other sites.

No page of another site can read an answer, unless `cross_origin` lets it.
"""

import base64
import hashlib
import re

from aiohttp import web

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Complete an answer's headers before they are sent."""
    complete(response)


def complete(response: web.StreamResponse) -> None:
    """Complete an answer's headers."""
    headers = response.headers
    headers["Server"] = "medianserve"  # and not which versions of what
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if not isinstance(response, web.FileResponse):
        headers["Cache-Control"] = "no-store"
    if response.content_type == "text/html":
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"


def page_policy(page: str, connect_to: tuple[str, ...] = ()) -> str:
    """Return the Content-Security-Policy of a page of our own: what it loads comes from here.

    Its inline scripts are allowed by their hashes, so no other one runs. Styles may be inline:
    Swagger UI makes some as it draws. `connect_to` are origins it may also ask.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    ]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *hashes)),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            " ".join(("connect-src 'self'", *connect_to)),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
