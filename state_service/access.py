"""Who may ask for what: the table of routes, and the one middleware that holds requests to it.

With tokens, each route needs the right that the table gives it; a route that is not in the table
needs the write token. Without tokens the service trusts whoever reaches it, which on loopback is
every program of this machine. A browser is one of them, and lends itself to any page: so a request
must name this service by an address or by a name of its own (a page whose name has been made to
lead here names itself), and must not come from a page of another site when it could change
something. A page cannot know a token, so with tokens neither matters.
"""

import ipaddress
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from state_service.errors import ForbiddenError, MisdirectedError, UnauthorizedError
from state_service.problems import Handler
from state_service.settings import Settings
from state_service.tokens import Right, Tokens, load_tokens

RIGHTS: Mapping[tuple[str, str], Right] = {
    # Probes know no secret, and learn only whether the service lives, and why it is not ready.
    ("GET", "/healthz"): Right.NOTHING,
    ("GET", "/readyz"): Right.NOTHING,
    # The same for every installation: no data in it, and the page has a place for the token.
    ("GET", "/docs"): Right.NOTHING,
    ("GET", "/docs/"): Right.NOTHING,
    ("GET", "/docs/static/{name}"): Right.NOTHING,
    ("GET", "/docs/swagger.json"): Right.NOTHING,
    ("GET", "/openapi.json"): Right.NOTHING,
    ("GET", "/"): Right.NOTHING,
    ("GET", "/dashboard/{name}"): Right.NOTHING,
    # No user is named there, but how much is going on is nobody else's business.
    ("GET", "/metrics"): Right.READ,
    ("GET", "/stats"): Right.READ,
    ("GET", "/events"): Right.READ,
    ("GET", "/overview"): Right.READ,
    ("GET", "/users"): Right.READ,
    ("GET", "/users/{user_id}/median"): Right.READ,
    ("GET", "/users/{user_id}/scores"): Right.READ,
    ("GET", "/users/{user_id}/stats"): Right.READ,
    ("POST", "/medians"): Right.READ,
    ("POST", "/scores"): Right.WRITE,
    ("POST", "/snapshot"): Right.WRITE,
    ("DELETE", "/users/{user_id}"): Right.WRITE,
}
_MAX_SHOWN_HOST_CHARS = 100


def guard(settings: Settings) -> Middleware:
    """Return the middleware. Raises `SettingsError` for tokens that cannot be used."""
    tokens = load_tokens(settings)
    allowed = [name.strip() for name in settings.allowed_hosts.split(",")]
    own = ("localhost", "127.0.0.1", settings.host, *allowed)
    names = frozenset(name.lower() for name in own if name)

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        needed = right_for(request)
        if tokens.required:
            _require(needed, tokens, request)
        else:
            _refuse_other_sites(needed, names, request)
        return await handler(request)

    return check


def right_for(request: web.Request) -> Right:
    """Return what the request's route needs."""
    resource = request.match_info.route.resource
    if resource is None:  # a 404 or 405, whoever asks
        return Right.NOTHING
    method = "GET" if request.method == "HEAD" else request.method
    return RIGHTS.get((method, resource.canonical), Right.WRITE)


def _require(needed: Right, tokens: Tokens, request: web.Request) -> None:
    if needed is Right.NOTHING:
        return
    given = request.headers.getall("Authorization", ())
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    right = Right.NOTHING
    if scheme.lower() == "bearer":
        right = tokens.right_of(token.strip(" ").encode("utf-8", "surrogateescape"))
    if right is Right.NOTHING:
        raise UnauthorizedError(
            f"send the {needed.name.lower()} token of this service: 'Authorization: Bearer <token>'"
        )
    if right < needed:
        raise ForbiddenError("a read token may not do this: send the write token")


def _refuse_other_sites(needed: Right, names: frozenset[str], request: web.Request) -> None:
    host = request.headers.get("Host", "")  # browsers always send it
    if host and not _is_own(host, names):
        raise MisdirectedError(
            f"this service does not go by the name {_name(host)[:_MAX_SHOWN_HOST_CHARS]!r}: "
            "add it to allowed_hosts, or set tokens"
        )
    origin = request.headers.get("Origin")
    if needed is Right.WRITE and origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError("a page of another site may not do this")


def _is_own(host: str, names: frozenset[str]) -> bool:
    """Tell whether a Host header names this service: no page's name can be an address."""
    name = _name(host)
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Return a Host header without its port.

    >>> _name("[::1]:8090"), _name("Localhost:8090"), _name("localhost")
    ('::1', 'localhost', 'localhost')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
