"""What `wire` decodes is what was encoded; whatever else comes is refused, with the place."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_service import wire
from state_service.errors import InvalidRequestError, ServiceError, TooLargeError
from state_service.parameters import refuse_unknown
from state_service.settings import Settings

JSON = "application/json"
SETTINGS = Settings(max_user_id_bytes=16, max_key_bytes=8, max_batches=5, max_lookup_users=6)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
USER_IDS = TEXT.filter(lambda text: 1 <= len(text.encode()) <= 16)
EVENTS = st.lists(st.tuples(USER_IDS, FINITE, FINITE), max_size=5)
HEADS = st.fixed_dictionaries(
    {"key": TEXT.filter(lambda text: 1 <= len(text.encode()) <= 8)},
    optional={
        "skipped": st.integers(0, 2**31 - 1),
        "received_at": st.none() | st.floats(0, 2**40),
        "request_id": st.none() | TEXT,
        "traceparent": st.none() | TEXT,
        "of a later version": st.none() | st.integers(0, 9) | TEXT,
    },
)
BATCHES = st.lists(st.tuples(HEADS, EVENTS), max_size=5)
Batches = list[tuple[dict[str, Any], list[tuple[str, float, float]]]]


def as_json(batches: Batches) -> bytes:
    later = "of a later version"  # which producers in MessagePack may be, and no other
    return msgspec.json.encode(
        {
            "batches": [
                {name: value for name, value in head.items() if name != later}
                | dict(zip(("user_id", "timestamp", "score"), columns(events), strict=True))
                for head, events in batches
            ]
        }
    )


def as_msgpack(batches: Batches) -> bytes:
    user_ids, timestamps, scores = columns([event for _, events in batches for event in events])
    return msgspec.msgpack.encode(
        {
            "batches": [head | {"events": len(events)} for head, events in batches],
            "user_id": user_ids,
            "timestamp": np.array(timestamps, "<f8").tobytes(),
            "score": np.array(scores, "<f8").tobytes(),
        }
    )


def columns(events: list[tuple[str, float, float]]) -> tuple[list[str], list[float], list[float]]:
    return tuple([event[n] for event in events] for n in range(3))  # type: ignore[return-value]


FORMS = [(as_json, JSON), (as_msgpack, wire.MSGPACK)]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT
    | st.binary(max_size=24),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize(("encode", "content_type"), FORMS)
@given(batches=BATCHES)
def test_what_was_encoded_is_decoded_to_the_last_bit(
    encode: Any, content_type: str, batches: Batches
) -> None:
    decoded = wire.decode_scores(encode(batches), content_type, SETTINGS).batches
    assert len(decoded) == len(batches)
    for batch, (head, events) in zip(decoded, batches, strict=True):
        user_ids, timestamps, scores = columns(events)
        assert (batch.key, batch.user_ids) == (head["key"], user_ids)
        assert batch.timestamps.tobytes() == np.array(timestamps, float).tobytes()
        assert batch.scores.tobytes() == np.array(scores, float).tobytes()
        assert batch.skipped == head.get("skipped", 0)
        for name in ("received_at", "request_id", "traceparent"):
            assert getattr(batch, name) == head.get(name)


@pytest.mark.parametrize(("encode", "content_type"), FORMS)
@given(batches=BATCHES.filter(bool), data=st.data())
def test_a_body_cut_short_anywhere_is_refused(
    encode: Any, content_type: str, batches: Batches, data: st.DataObject
) -> None:
    body = encode(batches)
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(InvalidRequestError):
        wire.decode_scores(cut, content_type, SETTINGS)


@given(BATCHES, st.sampled_from(["batches", "user_id", "timestamp", "score", "stages"]), ANY)
def test_messagepack_with_any_value_in_a_field_is_decoded_whole_or_refused(
    batches: Batches, field: str, value: Any
) -> None:
    body = msgspec.msgpack.decode(as_msgpack(batches)) | {field: value}
    _decoded_whole_or_refused(msgspec.msgpack.encode(body), wire.MSGPACK)


@given(BATCHES.filter(bool), st.sampled_from(["key", "events", "skipped", "received_at"]), ANY)
def test_messagepack_with_any_value_in_a_head_is_decoded_whole_or_refused(
    batches: Batches, name: str, value: Any
) -> None:
    body = msgspec.msgpack.decode(as_msgpack(batches))
    body["batches"][0][name] = value
    _decoded_whole_or_refused(msgspec.msgpack.encode(body), wire.MSGPACK)


@given(body=st.binary(max_size=64), content_type=st.sampled_from([JSON, wire.MSGPACK]))
def test_any_bytes_are_decoded_whole_or_refused(body: bytes, content_type: str) -> None:
    _decoded_whole_or_refused(body, content_type)


def _decoded_whole_or_refused(body: bytes, content_type: str) -> None:
    try:
        scores = wire.decode_scores(body, content_type, SETTINGS)
    except ServiceError as error:
        assert error.status in (400, 413)
        msgspec.json.encode(error.detail)
        return
    for batch in scores.batches:
        assert len(batch.user_ids) == len(batch.timestamps) == len(batch.scores)
        assert np.isfinite(batch.timestamps).all()
        assert np.isfinite(batch.scores).all()
        assert all(1 <= len(user_id.encode()) <= 16 for user_id in batch.user_ids)
        assert 1 <= len(batch.key.encode()) <= 8
        assert 0 <= batch.skipped < 2**31
    for durations in scores.stages.values():
        assert all(0 <= seconds <= 3600 for seconds in durations)


@pytest.mark.parametrize("length", [2**28, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("mark", [b"\xdd", b"\xdf", b"\xc6", b"\xdb"])
@pytest.mark.parametrize("field", ["batches", "user_id", "timestamp", "stages"])
def test_a_length_that_is_claimed_but_not_there_takes_no_memory(
    field: str, mark: bytes, length: int
) -> None:
    body = b"\x81" + msgspec.msgpack.encode(field) + mark + length.to_bytes(4, "big")
    with pytest.raises(InvalidRequestError):
        wire.decode_scores(body, wire.MSGPACK, SETTINGS)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite_gets_in_by_messagepack(number: float) -> None:
    good: Batches = [({"key": "k"}, [("u", 1.0, 1.0)])]
    column = np.array([number], "<f8").tobytes()
    for change in (
        {"timestamp": column},
        {"score": column},
        {"stages": {"decode": [number]}},
        {"batches": [{"key": "k", "events": 1, "received_at": number}]},
    ):
        body = msgspec.msgpack.encode(msgspec.msgpack.decode(as_msgpack(good)) | change)
        with pytest.raises(InvalidRequestError):
            wire.decode_scores(body, wire.MSGPACK, SETTINGS)


@given(
    user_ids=st.lists(USER_IDS, max_size=6),
    window=st.floats(0.001, 300),
    at=st.floats(-1e308, 9e10),
)
def test_a_question_for_medians_is_decoded_as_it_was_asked(
    user_ids: list[str], window: float, at: float
) -> None:
    asked = {"user_ids": user_ids, "window": window, "at": at}
    question = wire.decode_medians(msgspec.json.encode(asked), JSON, SETTINGS)
    assert (question.user_ids, question.window, question.at) == (user_ids, window, at)


@given(st.dictionaries(st.sampled_from(["user_ids", "window", "at", "else"]), ANY, max_size=4))
def test_any_question_for_medians_is_decoded_whole_or_refused(question: dict[str, Any]) -> None:
    try:
        decoded = wire.decode_medians(msgspec.json.encode(question), JSON, SETTINGS)
    except ServiceError as error:
        assert error.status in (400, 413)
        return
    assert len(decoded.user_ids) <= 6
    assert all(1 <= len(user_id.encode()) <= 16 for user_id in decoded.user_ids)
    assert decoded.window is None or 0 < decoded.window <= SETTINGS.window_seconds


def test_more_than_the_limits_is_too_large() -> None:
    batches: Batches = [({"key": str(n)}, []) for n in range(6)]
    for encode, content_type in FORMS:
        with pytest.raises(TooLargeError):
            wire.decode_scores(encode(batches), content_type, SETTINGS)
    with pytest.raises(TooLargeError):
        wire.decode_medians(msgspec.json.encode({"user_ids": ["u"] * 7}), JSON, SETTINGS)


def test_a_refusal_does_not_repeat_a_body_of_any_length() -> None:
    for decode in (
        lambda: wire.decode_medians(b'{"user_ids":[],"%s":1}' % (b"u" * 100_000), JSON, SETTINGS),
        lambda: refuse_unknown({"u" * 8000: "1"}, "GET", "/users/{user_id}/median"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            decode()
        assert "uuu" in caught.value.detail
        assert len(caught.value.detail) < 500


BATCH = b'{"key": "k", "user_id": ["a"], "timestamp": [1], "score": [1]}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"batches": [%s], "batches": []}' % BATCH,
        b'{"batches": [%s], "\\u0062atches": []}' % BATCH,
        b'{"batches": [%s]}' % BATCH.replace(b"}", b', "score": [2]}'),
        b'{"batches": [%s]}' % BATCH.replace(b"}", b', "key": "l"}'),
    ],
)
def test_a_name_that_stands_twice_is_refused_and_no_half_is_taken(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="twice in one object"):
        wire.decode_scores(body, JSON, SETTINGS)


def test_users_named_like_fields_do_no_harm() -> None:
    body = BATCH.replace(b'["a"]', b'["score", "batches"]').replace(b"[1]", b"[1, 2]")
    (batch,) = wire.decode_scores(b'{"batches": [%s]}' % body, JSON, SETTINGS).batches
    assert batch.user_ids == ["score", "batches"]
    body = b'{"user_ids": ["at", "at", "user_ids", "window"]}'
    assert len(wire.decode_medians(body, JSON, SETTINGS).user_ids) == 4


def test_users_that_are_asked_for_twice_over_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'user_ids' stands twice"):
        wire.decode_medians(b'{"user_ids": ["a"], "user_ids": []}', JSON, SETTINGS)
