"""Request and answer bodies of the HTTP interface, as openapi.yaml describes them. Pure.

Typed decoding refuses wrong types by itself; the checks here are what types cannot say. A bad
batch refuses its whole request and names the place: producers send what they have validated.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from state_service.errors import InvalidRequestError, TooLargeError
from state_service.settings import Settings

_Skipped = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_EpochSeconds = Annotated[float, Meta(ge=0, le=2**40)]


class Batch(msgspec.Struct, frozen=True):
    """One producer request's scored events, as columns of one length."""

    key: str
    user_id: list[str]
    timestamp: list[float]
    score: list[float]
    skipped: _Skipped = 0
    received_at: _EpochSeconds | None = None
    request_id: str | None = None
    traceparent: str | None = None


class _ScoresBody(msgspec.Struct):
    batches: list[Batch]


class MediansQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Users to answer for; `window` in seconds and `at` in epoch seconds as in the URLs."""

    user_ids: list[str]
    window: float | None = None
    at: float | None = None


_decode_scores = msgspec.json.Decoder(_ScoresBody).decode
_decode_medians = msgspec.json.Decoder(MediansQuestion).decode
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_batches(body: bytes, settings: Settings) -> list[Batch]:
    """Decode and check the body of `POST /scores`; `InvalidRequestError` names the place."""
    try:
        batches = _decode_scores(body).batches
    except _NOT_DECODABLE as error:
        raise InvalidRequestError(f"the body is not a list of batches: {error}") from None
    if len(batches) > settings.max_batches:
        raise TooLargeError(
            f"{len(batches)} batches; the limit is {settings.max_batches}: send several requests"
        )
    for number, batch in enumerate(batches):
        place = f"batches[{number}]"
        key_bytes = _utf8_length(batch.key)
        if not 1 <= key_bytes <= settings.max_key_bytes:
            raise InvalidRequestError(f"{place}.key must have 1 to {settings.max_key_bytes} bytes")
        if not len(batch.user_id) == len(batch.timestamp) == len(batch.score):
            raise InvalidRequestError(
                f"{place}: user_id, timestamp and score must have one length, not "
                f"{len(batch.user_id)}, {len(batch.timestamp)} and {len(batch.score)}"
            )
        _check_user_ids(batch.user_id, f"{place}.user_id", settings.max_user_id_bytes)
    return batches


def decode_medians(body: bytes, settings: Settings) -> MediansQuestion:
    """Decode and check the body of `POST /medians`."""
    try:
        question = _decode_medians(body)
    except _NOT_DECODABLE as error:
        raise InvalidRequestError(f"the body is not a question for medians: {error}") from None
    if len(question.user_ids) > settings.max_lookup_users:
        raise TooLargeError(
            f"{len(question.user_ids)} users; the limit is {settings.max_lookup_users}: "
            "ask several times"
        )
    _check_user_ids(question.user_ids, "user_ids", settings.max_user_id_bytes)
    check_window(question.window, settings)
    return question


def check_window(window: float | None, settings: Settings) -> None:
    """Refuse a window that is not positive or longer than the configured one."""
    if window is not None and not 0 < window <= settings.window_seconds:
        raise InvalidRequestError(
            f"window must be more than 0 and at most {settings.window_seconds:g} seconds"
        )


def check_user_id(user_id: str, settings: Settings) -> None:
    """Refuse a user id that no event can have."""
    if not 1 <= _utf8_length(user_id) <= settings.max_user_id_bytes:
        raise InvalidRequestError(f"user_id must have 1 to {settings.max_user_id_bytes} bytes")


def _check_user_ids(user_ids: list[str], place: str, max_bytes: int) -> None:
    # A UTF-8 character has at most 4 bytes: almost always one look at the longest is enough.
    if all(user_ids) and max(map(len, user_ids), default=0) * 4 <= max_bytes:
        return
    for index, user_id in enumerate(user_ids):
        if not 1 <= _utf8_length(user_id) <= max_bytes:
            raise InvalidRequestError(f"{place}[{index}] must have 1 to {max_bytes} bytes")


def _utf8_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
