"""Query parameters of lists -> typed values, and the tokens that lead from page to page. Pure."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from state_service.checks import check_user_id
from state_service.errors import InvalidRequestError
from state_service.parameters import read_count
from state_service.ranking import By, Order, Place
from state_service.settings import Settings

_MOST = 2**31 - 1  # no user has more scores
DEFAULT_LIMIT = 100

_BY: Mapping[str | None, By] = {"count": "count", "median": "median"}
_ORDERS: Mapping[str | None, Order] = {"asc": "asc", "desc": "desc"}


@dataclass(frozen=True, slots=True)
class UsersQuestion:
    """Which page of which ranking is asked for."""

    limit: int
    by: By
    order: Order
    after: Place | None
    min_count: int


class _Token(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    by: By
    order: Order
    min_count: int
    value: float
    user_id: Annotated[str, Meta(min_length=1)]


_decode_token = msgspec.json.Decoder(_Token).decode


def read_users_question(query: Mapping[str, str], settings: Settings) -> UsersQuestion:
    """Read what `GET /users` takes; `InvalidRequestError` names the wrong one.

    A token continues the ranking that it is of: but for `limit`, nothing need be said again.
    """
    limit = read_limit(query, settings.max_listed, setting="max_listed")
    min_count = read_count(query, "min_count", _MOST, 1)
    by, order = _BY.get(query.get("sort")), _ORDERS.get(query.get("order"))
    if "sort" in query and by is None:
        raise InvalidRequestError("sort must be count or median")
    if "order" in query and order is None:
        raise InvalidRequestError("order must be asc or desc")
    if "page_token" not in query:
        return UsersQuestion(limit, by or "count", order or "desc", None, min_count)
    token = _read_token(query["page_token"], settings)
    said = ("sort", by, token.by), ("order", order, token.order)
    counted = ("min_count", min_count if "min_count" in query else None, token.min_count)
    for name, value, first in (*said, counted):
        if value not in (None, first):
            raise InvalidRequestError(f"the page_token is of another {name}: {first}")
    place = Place(token.value, token.user_id)
    return UsersQuestion(limit, token.by, token.order, place, token.min_count)


def page_token(question: UsersQuestion, after: Place) -> str:
    """Return what asks for the page after a place; safe in an address as it is."""
    token = msgspec.json.encode(
        _Token(question.by, question.order, question.min_count, after.value, after.user_id)
    )
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def read_limit(
    query: Mapping[str, str],
    most: int,
    default: int = DEFAULT_LIMIT,
    setting: str | None = None,
) -> int:
    """Read `limit`: how many to answer with, 1 to `most`, which is of that setting, if any."""
    return read_count(query, "limit", most, min(default, most), setting)


def _read_token(text: str, settings: Settings) -> _Token:
    try:
        encoded = text.encode("ascii") + b"=" * (-len(text) % 4)
        token = _decode_token(base64.b64decode(encoded, altchars=b"-_", validate=True))
        check_user_id(token.user_id, settings)
    except (UnicodeError, binascii.Error, msgspec.DecodeError, InvalidRequestError):
        raise InvalidRequestError("page_token is not one that this service gave") from None
    return token
