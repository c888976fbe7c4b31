"""Query parameters -> typed values, or an error that names the parameter. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import msgspec

from state_service.errors import InvalidRequestError
from state_service.settings import Settings
from state_service.wire import check_moment, check_window

_decode_number = msgspec.json.Decoder(float).decode


@dataclass(frozen=True, slots=True)
class WindowQuestion:
    """What a question about a user may ask for; None means the default."""

    window: float | None = None
    at: float | None = None
    quantiles: tuple[float, ...] = ()


def read_window_question(
    query: Mapping[str, str], settings: Settings, *, quantiles: bool = False
) -> WindowQuestion:
    """Read `window`, `at` and, where allowed, `q`. An unknown parameter is refused: a typo in
    one must not be answered as if it had not been there.
    """  # noqa: D205 - one sentence of summary, wrapped
    refuse_unknown(query, ("at", "q", "window") if quantiles else ("at", "window"))
    if len(query) > len(set(query)):  # a multi-dict has a key for each time it was given
        raise InvalidRequestError("each parameter may be given once")
    window = _number(query, "window")
    check_window(window, settings)
    at = _number(query, "at")
    check_moment("at", at)
    return WindowQuestion(window, at, _quantiles(query.get("q"), settings))


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


def refuse_unknown(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise `InvalidRequestError` for a parameter that is not known."""
    if unknown := sorted(set(query) - set(known)):
        raise InvalidRequestError(
            f"unknown parameter '{unknown[0][:100]}': known are {', '.join(known) or 'none here'}"
        )


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


def _quantiles(text: str | None, settings: Settings) -> tuple[float, ...]:
    if text is None:
        return ()
    values = tuple(map(_finite, text.split(",")))
    too_many = len(values) > settings.max_quantiles
    if too_many or not all(0 <= value <= 1 for value in values):
        raise InvalidRequestError(
            f"q must be 1 to {settings.max_quantiles} numbers from 0 to 1, such as q=0.05,0.95",
            limit="max_quantiles" if too_many else None,
        )
    return values


def _finite(text: str) -> float:
    """Return the number that a text is as JSON, NaN when it is none.

    Python's own reader takes more: `1_0`, digits of any script, `infinity`.
    """
    try:
        return _decode_number(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return math.nan
