"""Who may ask for what: the table of routes, and the one middleware that holds requests to it.

With tokens, each route needs the right that the table gives it; a route that is not in the table
needs the write token. Tokens in files can be read anew while the service runs. Without
tokens the service trusts whoever reaches it, which on loopback is every program of this machine. A
browser is one of them, and lends itself to any page: so a request must name this service by an
address or by a name of its own (a page whose name has been made to lead here names itself), and
must not come from a page of another site when it could change something. A page cannot know a
token, so with tokens neither matters.
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
    # Who sends events need not be able to read medians.
    ("POST", "/ingest"): Right.INGEST,
    ("POST", "/scores"): Right.WRITE,
    ("POST", "/snapshot"): Right.WRITE,
    ("DELETE", "/users/{user_id}"): Right.WRITE,
}
# What probes ask, by whatever name their platform gives the service.
_UNDER_ANY_NAME = {"/healthz", "/readyz"}
CHANGES = (Right.WRITE, Right.INGEST)
_MAX_SHOWN_HOST_CHARS = 100


class Guard:
    """What is asked of requests. Raises `SettingsError` for tokens that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.tokens = load_tokens(settings)
        allowed = [name.strip() for name in settings.allowed_hosts.split(",")]
        own = ("localhost", "127.0.0.1", settings.host, *allowed)
        self._names = frozenset(name.lower() for name in own if name)

    def reload(self) -> None:
        """Read the tokens' files again. Raises `SettingsError`, and keeps those in force then."""
        self.tokens = load_tokens(self._settings)

    def middleware(self) -> Middleware:
        """Return what holds requests to the table."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            needed = right_for(request.method, request.match_info)
            if self.tokens.required:
                _require(needed, self.tokens, request)
            else:
                _refuse_other_sites(needed, self._names, request)
            return await handler(request)

        return check


GUARD = web.AppKey("GUARD", Guard)


def right_for(method: str, match: web.UrlMappingMatchInfo) -> Right:
    """Return what a route needs."""
    resource = match.route.resource
    if resource is None:  # a 404 or 405, whoever asks
        return Right.NOTHING
    method = "GET" if method == "HEAD" else method
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
            f"send the {_word(needed)} token of this service: 'Authorization: Bearer <token>'"
        )
    if needed not in right:
        other = "" if needed is Right.WRITE else f"the {_word(needed)} token or "
        raise ForbiddenError(f"that token may not do this: send {other}the write token")


def _word(right: Right) -> str:
    return str(right.name).lower()


def _refuse_other_sites(needed: Right, names: frozenset[str], request: web.Request) -> None:
    host = request.headers.get("Host", "")  # browsers always send it
    if host and request.path not in _UNDER_ANY_NAME and not _is_own(host, names):
        raise MisdirectedError(
            f"this service does not go by the name {_name(host)[:_MAX_SHOWN_HOST_CHARS]!r}: "
            "add it to allowed_hosts, or set tokens"
        )
    origin = request.headers.get("Origin")
    if needed in CHANGES and origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError("a page of another site may not do this: only tokens can let it")


def _is_own(host: str, names: frozenset[str]) -> bool:
    """Tell whether a Host header names this service: no page's name can be an address."""
    name = _name(host)
    if name in names or "*" in names or _parents(name) & names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _parents(name: str) -> set[str]:
    """Return what stands for a name in `allowed_hosts`, besides itself.

    >>> sorted(_parents("a.b.test"))
    ['*.b.test', '*.test']
    """
    parts = name.split(".")
    return {f"*.{'.'.join(parts[index:])}" for index in range(1, len(parts))}


def _name(host: str) -> str:
    """Return a Host header without its port.

    >>> _name("[::1]:8090"), _name("Localhost:8090"), _name("localhost")
    ('::1', 'localhost', 'localhost')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
