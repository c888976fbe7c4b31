"""Request and answer bodies of the HTTP interface, as openapi.yaml describes them. Pure.

Typed decoding refuses wrong types by itself; the checks here are what types cannot say. A bad
batch refuses its whole request and names the place: producers send what they have validated.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from state_service.checks import check_moment, check_user_ids, check_window, utf8_length
from state_service.errors import InvalidRequestError, TooLargeError
from state_service.repeated_names import refuse_repeated_names
from state_service.settings import Settings
from state_service.wire_faults import (
    BYTE_ORDER_MARK,
    NOT_DECODABLE,
    explained_medians,
    explained_msgpack,
    explained_scores,
)

_Skipped = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_EpochSeconds = Annotated[float, Meta(ge=0, le=2**40)]


MSGPACK = "application/msgpack"
_MSGPACK_MAPS = frozenset(bytes([first]) for first in (*range(0x80, 0x90), 0xDE, 0xDF))

# What the handler measures of itself and reports here.
HandlerStage = Literal["decode", "score", "record", "respond"]
_Stages = dict[
    HandlerStage,
    Annotated[list[Annotated[float, Meta(ge=0, le=3600)]], Meta(max_length=1000)],
]
_Seconds = Annotated[float, Meta(ge=0, le=2**40)]


_Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what every reader of JSON can hold


class SpoolReport(msgspec.Struct, frozen=True):
    """What waits in a host's spool, and, in events since its making, what became of the rest."""

    host: Annotated[str, Meta(min_length=1, max_length=256)]
    batches: _Count
    bytes: _Count
    oldest_seconds: _Seconds
    refused: _Count
    spooled_events: _Count
    replayed_events: _Count
    expired_events: _Count


class ModelReport(msgspec.Struct, frozen=True):
    """Which model gave the scores: its name and version, and what tells its weights from others."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    version: Annotated[str, Meta(min_length=1, max_length=256)]
    features: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    weights: Annotated[str, Meta(min_length=1, max_length=256)]
    weights_sha256: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]


class _Head(msgspec.Struct, kw_only=True):
    """A batch's fields but for its columns."""

    key: str
    skipped: _Skipped = 0
    received_at: _EpochSeconds | None = None
    request_id: str | None = None
    traceparent: str | None = None


class _TextBatch(_Head, kw_only=True, forbid_unknown_fields=True):
    user_id: list[str | int]
    timestamp: list[float]
    score: list[float]


class _TextScores(msgspec.Struct, forbid_unknown_fields=True):
    batches: list[_TextBatch]
    stages: _Stages = {}
    spool: SpoolReport | None = None
    model: ModelReport | None = None


# Unlike in JSON, which people write, unknown fields are left out here: during an upgrade a handler
# may be newer than this service, and what it has to say beside the scores must not cost them.
class _BinaryBatch(_Head, kw_only=True):
    events: Annotated[int, Meta(ge=0)]  # the next ones of the columns


class _BinaryScores(msgspec.Struct):
    """All batches' columns, one after the other: most batches are too small for their own."""

    batches: list[_BinaryBatch]
    user_id: list[str]
    timestamp: bytes  # <f8 [events]
    score: bytes  # <f8 [events]
    stages: _Stages = {}
    spool: SpoolReport | None = None
    model: ModelReport | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One producer request's scored events: columns of one length, the numbers float64."""

    key: str
    user_ids: list[str]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]
    skipped: int = 0
    received_at: float | None = None
    request_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A `POST /scores`: its batches, and durations in seconds by the producer's stage.

    `spool` tells how the producer's is, when it has one and has something to tell; `model` which
    one gave the scores, where the producer says.
    """

    batches: list[Batch]
    stages: Mapping[HandlerStage, Sequence[float]]
    spool: SpoolReport | None = None
    model: ModelReport | None = None

    def newest_timestamp(self) -> float:
        """Return the newest timestamp of all batches, in what the producer takes for seconds."""
        return max(
            (float(b.timestamps.max()) for b in self.batches if len(b.timestamps)), default=0
        )


class MediansQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Users to answer for; `window` in seconds and `at` in epoch seconds as in the URLs."""

    user_ids: list[str]
    window: float | None = None
    at: float | None = None


class _MediansBody(MediansQuestion, frozen=True):
    user_ids: list[str | int]  # type: ignore[assignment]


_IN_A_BATCH = _TextBatch.__struct_fields__

_decode_text = msgspec.json.Decoder(_TextScores).decode
_decode_binary = msgspec.msgpack.Decoder(_BinaryScores).decode
_decode_medians = msgspec.json.Decoder(_MediansBody).decode


def decode_scores(body: bytes, content_type: str, settings: Settings) -> Scores:
    """Decode and check the body of `POST /scores`; `InvalidRequestError` names the place.

    JSON, or MessagePack in which all batches share their columns, the numbers being bytes of
    little-endian float64. Which of the two is told by the content type, and by a first byte with
    which no JSON begins: plain clients send either under any type.
    """
    if content_type == MSGPACK or body[:1] in _MSGPACK_MAPS:
        try:
            return _of_shared_columns(_decode_binary(body), settings)
        except NOT_DECODABLE as error:
            raise InvalidRequestError(explained_msgpack(error)) from None
    text = body.removeprefix(BYTE_ORDER_MARK)
    try:
        decoded = _decode_text(text)
    except NOT_DECODABLE as error:
        raise InvalidRequestError(
            explained_scores(text, content_type, error, _decode_text)
        ) from None
    refuse_repeated_names(text, {"batches": 1, **dict.fromkeys(_IN_A_BATCH, len(decoded.batches))})
    return _of_own_columns(decoded, settings)


def _of_own_columns(decoded: _TextScores, settings: Settings) -> Scores:
    _check_heads(decoded.batches, settings)
    batches = []
    for number, batch in enumerate(decoded.batches):
        place = f"batches[{number}]"
        _check_lengths(place, batch.user_id, batch.timestamp, batch.score)
        user_ids = _texts(batch.user_id)
        check_user_ids(user_ids, f"{place}.user_id", settings.max_user_id_bytes)
        # JSON has no other numbers than finite ones.
        timestamps, scores = np.array(batch.timestamp, float), np.array(batch.score, float)
        batches.append(_batch(batch, user_ids, timestamps, scores))
    return Scores(batches, decoded.stages, decoded.spool, decoded.model)


def _of_shared_columns(decoded: _BinaryScores, settings: Settings) -> Scores:
    _check_heads(decoded.batches, settings)
    user_ids = decoded.user_id
    timestamps = _numbers(decoded.timestamp, "timestamp")
    scores = _numbers(decoded.score, "score")
    _check_lengths("the body", user_ids, timestamps, scores)
    check_user_ids(user_ids, "user_id", settings.max_user_id_bytes)
    batches = []
    begin = 0
    for batch in decoded.batches:
        part = slice(begin, begin + batch.events)
        batches.append(_batch(batch, user_ids[part], timestamps[part], scores[part]))
        begin = part.stop
    if begin != len(user_ids):
        raise InvalidRequestError(
            f"the batches have {begin} events together, the columns {len(user_ids)}"
        )
    return Scores(batches, decoded.stages, decoded.spool, decoded.model)


def _check_heads(batches: Sequence[_Head], settings: Settings) -> None:
    if len(batches) > settings.max_batches:
        raise TooLargeError(
            f"{len(batches)} batches; the limit is {settings.max_batches}: send several requests",
            limit="max_batches",
        )
    for number, batch in enumerate(batches):
        if not 1 <= utf8_length(batch.key) <= settings.max_key_bytes:
            raise InvalidRequestError(
                f"batches[{number}].key must have 1 to {settings.max_key_bytes} bytes",
                limit="max_key_bytes" if batch.key else None,
            )


def _check_lengths(place: str, *columns: Sized) -> None:
    user_ids, timestamps, scores = map(len, columns)
    if not user_ids == timestamps == scores:
        raise InvalidRequestError(
            f"{place}: user_id, timestamp and score must have one length, not "
            f"{user_ids}, {timestamps} and {scores}"
        )


def _numbers(column: bytes, place: str) -> NDArray[np.float64]:
    if len(column) % 8:
        raise InvalidRequestError(f"{place} has {len(column)} bytes, not 8 a number")
    numbers = np.frombuffer(column, "<f8").astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        index = int(np.isfinite(numbers).argmin())
        raise InvalidRequestError(f"{place}[{index}] is not a finite number")
    return numbers


def _batch(
    head: _Head,
    user_ids: list[str],
    timestamps: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> Batch:
    return Batch(
        head.key,
        user_ids,
        timestamps,
        scores,
        head.skipped,
        head.received_at,
        head.request_id,
        head.traceparent,
    )


def decode_medians(body: bytes, content_type: str, settings: Settings) -> MediansQuestion:
    """Decode and check the body of `POST /medians`."""
    text = body.removeprefix(BYTE_ORDER_MARK)
    try:
        asked = _decode_medians(text)
    except NOT_DECODABLE as error:
        raise InvalidRequestError(explained_medians(text, content_type, error)) from None
    refuse_repeated_names(text, dict.fromkeys(MediansQuestion.__struct_fields__, 1))
    question = MediansQuestion(_texts(asked.user_ids), asked.window, asked.at)
    if len(question.user_ids) > settings.max_lookup_users:
        raise TooLargeError(
            f"{len(question.user_ids)} users; the limit is {settings.max_lookup_users}: "
            "ask several times",
            limit="max_lookup_users",
        )
    check_user_ids(question.user_ids, "user_ids", settings.max_user_id_bytes)
    check_window(question.window, settings)
    check_moment("at", question.at)
    return question


def _texts(user_ids: Sequence[str | int]) -> list[str]:
    """Return user ids with an integer as its decimal string, as the scorer takes it."""
    return [str(user_id) for user_id in user_ids]
