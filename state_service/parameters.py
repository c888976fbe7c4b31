"""Query parameters -> typed values, or an error that names the parameter. Pure.

Which address takes which is in one table. What is not in it is refused: a typo must not be answered
as if it had not been there.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from state_service.checks import check_moment, check_window
from state_service.errors import InvalidRequestError
from state_service.settings import Settings

_OF_A_WINDOW = ("at", "window")
_ANY = None

PARAMETERS: Mapping[tuple[str, str], tuple[str, ...] | None] = {
    # These answer the same whatever is asked, so that nothing asked can be missed. Probes and
    # browsers append something of their own to get past caches.
    ("GET", "/healthz"): _ANY,
    ("GET", "/readyz"): _ANY,
    ("GET", "/docs"): _ANY,
    ("GET", "/docs/"): _ANY,
    ("GET", "/docs/static/{name}"): _ANY,
    ("GET", "/openapi.json"): _ANY,
    ("GET", "/"): _ANY,
    ("GET", "/dashboard/{name}"): _ANY,
    ("GET", "/metrics"): (),
    ("GET", "/stats"): (),
    ("GET", "/events"): ("limit", "user_id", "window"),
    ("GET", "/overview"): ("user_id",),
    ("GET", "/users"): ("limit", "min_count", "order", "page_token", "sort"),
    ("GET", "/users/{user_id}/median"): _OF_A_WINDOW,
    ("GET", "/users/{user_id}/scores"): (*_OF_A_WINDOW, "limit", "since", "until"),
    ("GET", "/users/{user_id}/stats"): (*_OF_A_WINDOW, "q"),
    ("POST", "/ingest"): (),
    ("POST", "/medians"): (),
    ("POST", "/scores"): (),
    ("POST", "/snapshot"): (),
    ("DELETE", "/users/{user_id}"): (),
}
FIELDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("POST", "/medians"): ("user_ids", "window", "at"),
    ("POST", "/scores"): ("batches", "stages", "spool", "model"),
}
_ELSEWHERE = {
    "dry_run": "a dry run is a header, 'X-Dry-Run: 1', of POST /ingest and /predictions/scorer",
    "token": "send a token as a header, 'Authorization: Bearer <token>'",
}
_ELSEWHERE |= {"dryrun": _ELSEWHERE["dry_run"], "x-dry-run": _ELSEWHERE["dry_run"]}
_ELSEWHERE |= {"access_token": _ELSEWHERE["token"], "api_key": _ELSEWHERE["token"]}
_MAX_SHOWN_CHARS = 100

# As people write numbers, `.5`, `1.` and `+1` too. Python's own reader takes more: `1_0`, digits of
# any script, `infinity`. A `+` in an address may arrive as the space that it stands for there.
_NUMBER = re.compile(r"[ +-]?(\d+\.?\d*|\.\d+)([eE][ +-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class WindowQuestion:
    """What a question about a user may ask for; None means the default."""

    window: float | None = None
    at: float | None = None
    quantiles: tuple[float, ...] = ()


def read_window_question(query: Mapping[str, str], settings: Settings) -> WindowQuestion:
    """Read `window`, `at` and `q`, as far as they are there."""
    window = _number(query, "window")
    check_window(window, settings)
    at = _number(query, "at")
    check_moment("at", at)
    return WindowQuestion(window, at, _quantiles(_all_of(query, "q"), settings))


def read_span(query: Mapping[str, str]) -> tuple[float | None, float | None] | None:
    """Read `since` and `until`, epoch seconds; None when neither is given.

    Raises `InvalidRequestError` when they cross, or stand beside what says the same otherwise.
    """
    since, until = _number(query, "since"), _number(query, "until")
    if since is None and until is None:
        return None
    for name in ("at", "window"):
        if name in query:
            raise InvalidRequestError(f"since and until stand in the place of {name}: leave it out")
    check_moment("since", since)
    check_moment("until", until)
    if since is not None and until is not None and since > until:
        raise InvalidRequestError("since must not be later than until: exchange the two")
    return since, until


def refuse_unknown(query: Mapping[str, str], method: str, path: str) -> None:
    """Raise `InvalidRequestError` for a parameter that a route does not take, or that comes twice.

    `path` is the route's template. The error says where the parameter belongs.
    """
    known = PARAMETERS.get((method, path), ())
    if known is None:
        return
    if unknown := sorted(set(query) - set(known)):
        knows = f"knows {', '.join(known)}" if known else "takes no parameters"
        raise InvalidRequestError(
            f"unknown parameter '{unknown[0][:_MAX_SHOWN_CHARS]}': "
            f"{_where(unknown[0], method, path, known)}{method} {path} {knows}"
        )
    # A multi-dict has an item for each time that one is given.
    if len(query) - len(_all_of(query, "q")) > len(set(query) - {"q"}):
        raise InvalidRequestError("each parameter may be given once, but for q")


def _where(name: str, method: str, path: str, known: tuple[str, ...]) -> str:
    """Return where an unknown parameter belongs, as far as that can be told."""
    if name in FIELDS.get((method, path), ()):
        return f'put it into the body, as its field "{name}"; '
    if place := _ELSEWHERE.get(name.lower()):
        return f"{place}; "
    if close := difflib.get_close_matches(name[:_MAX_SHOWN_CHARS], known, 1):
        return f"did you mean {close[0]}? "
    places = [" ".join(route) for route, names in PARAMETERS.items() if name in (names or ())]
    return f"it is known at {', '.join(places)}; " if places else ""


def check_percent_encoding(raw_path: str) -> None:
    """Refuse a path with percent-encoded bytes that are not UTF-8.

    aiohttp leaves them as they are, so it would be another user who is asked for.
    """
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise InvalidRequestError("the address is not percent-encoded UTF-8") from None


def _number(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    value = _finite(text)
    if math.isnan(value):
        raise InvalidRequestError(f"{name} must be a finite number of seconds")
    return value


def _all_of(query: Mapping[str, str], name: str) -> list[str]:
    return [value for given, value in query.items() if given == name]


def _quantiles(texts: list[str], settings: Settings) -> tuple[float, ...]:
    if not texts:
        return ()
    values = tuple(map(_finite, ",".join(texts).split(",")))
    too_many = len(values) > settings.max_quantiles
    if too_many or not all(0 <= value <= 1 for value in values):
        raise InvalidRequestError(
            f"q must be 1 to {settings.max_quantiles} numbers from 0 to 1, such as q=0.05,0.95",
            limit="max_quantiles" if too_many else None,
        )
    return values


def _finite(text: str) -> float:
    """Return the number that a text is, NaN when it is none or beyond float64."""
    if _NUMBER.fullmatch(text) is None:
        return math.nan
    value = float(text.replace(" ", "+"))
    return value if math.isfinite(value) else math.nan


def read_count(
    query: Mapping[str, str], name: str, most: int, default: int, setting: str | None = None
) -> int:
    """Read a whole number from 1 to `most`, which is of that setting, if any."""
    text = query.get(name)
    if text is None:
        return default
    value = _finite(text)
    if 1 <= value <= most and value.is_integer():
        return int(value)
    raise InvalidRequestError(
        f"{name} must be a whole number from 1 to {most}", limit=setting if value > most else None
    )
