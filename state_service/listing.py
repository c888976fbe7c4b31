"""Query parameters of lists -> typed values, and the tokens that lead from page to page. Pure."""

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from state_service.errors import InvalidRequestError
from state_service.ranking import By, Order, Place
from state_service.settings import Settings
from state_service.wire import check_user_id

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


class _Token(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    by: By
    order: Order
    value: float
    user_id: Annotated[str, Meta(min_length=1)]


_decode_token = msgspec.json.Decoder(_Token).decode


def read_users_question(query: Mapping[str, str], settings: Settings) -> UsersQuestion:
    """Read `limit`, `sort`, `order` and `page_token`; `InvalidRequestError` names the wrong one.

    A token continues the ranking that it is of; `sort` and `order` need not be said again.
    """
    refuse_others(query, ("limit", "sort", "order", "page_token"))
    limit = read_limit(query, settings.max_listed)
    by, order = _BY.get(query.get("sort")), _ORDERS.get(query.get("order"))
    if "sort" in query and by is None:
        raise InvalidRequestError("sort must be count or median")
    if "order" in query and order is None:
        raise InvalidRequestError("order must be asc or desc")
    if "page_token" not in query:
        return UsersQuestion(limit, by or "count", order or "desc", None)
    token = _read_token(query["page_token"], settings)
    if by not in (None, token.by) or order not in (None, token.order):
        raise InvalidRequestError("the page_token is of another sort or order")
    return UsersQuestion(limit, token.by, token.order, Place(token.value, token.user_id))


def page_token(by: By, order: Order, after: Place) -> str:
    """Return what asks for the page after a place; safe in an address as it is."""
    token = msgspec.json.encode(_Token(by, order, after.value, after.user_id))
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def read_limit(query: Mapping[str, str], most: int, default: int = DEFAULT_LIMIT) -> int:
    """Read `limit`: how many to answer with, 1 to `most`."""
    text = query.get("limit")
    if text is None:
        return min(default, most)
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (digits and 1 <= int(text) <= most):
        raise InvalidRequestError(f"limit must be a whole number from 1 to {most}")
    return int(text)


def refuse_others(query: Mapping[str, str], known: Collection[str]) -> None:
    """Refuse parameters that are not known, and those given twice."""
    if unknown := sorted(set(query) - set(known)):
        raise InvalidRequestError(
            f"unknown parameter '{unknown[0]}': known are {', '.join(sorted(known))}"
        )
    if len(query) > len(set(query)):  # a multi-dict has a key for each time it was given
        raise InvalidRequestError("each parameter may be given once")


def without(query: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the parameters but for some."""
    return {name: value for name, value in query.items() if name not in names}


def _read_token(text: str, settings: Settings) -> _Token:
    try:
        encoded = text.encode("ascii") + b"=" * (-len(text) % 4)
        token = _decode_token(base64.b64decode(encoded, altchars=b"-_", validate=True))
        check_user_id(token.user_id, settings)
    except (UnicodeError, binascii.Error, msgspec.DecodeError, InvalidRequestError):
        raise InvalidRequestError("page_token is not one that this service gave") from None
    return token
