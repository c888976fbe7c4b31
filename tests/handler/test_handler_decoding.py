"""Request bytes become columns; every fault is named and hurts nobody else."""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import decoding_json, decoding_ndjson
from handler.decoding import ARROW, JSON, NDJSON, Format, decode_together
from handler.decoding import decode as decode_body
from handler.decoding_clean import columns_of_clean
from handler.errors import RequestError
from handler.events import MAX_INTEGER_DIGITS, EventColumns, EventShape

SHAPE = EventShape(features=3, max_events=50, max_user_id_bytes=16)
GOOD = {"user_id": "user-1", "timestamp": 1_700_000_000.5, "features": [0.1, 0.2, 0.3]}


def event(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def decode(document: Any) -> EventColumns:
    return decode_body(json.dumps(document).encode(), JSON, SHAPE)


def assert_good(columns: EventColumns) -> None:
    assert columns.total == 1
    assert columns.errors == []
    assert columns.positions.tolist() == [0]
    assert columns.user_ids == ["user-1"]
    assert columns.timestamps.tolist() == [1_700_000_000.5]
    assert columns.features.dtype == np.float32
    assert columns.features.tolist() == np.array([[0.1, 0.2, 0.3]], np.float32).tolist()


@pytest.mark.parametrize(
    "document", [{"events": [GOOD]}, [GOOD], GOOD, {"events": [{**GOOD, "extra": {"a": [1]}}]}]
)
def test_each_form_of_a_request_is_understood(document: Any) -> None:
    assert_good(decode(document))


ONE, OTHER = (json.dumps(event(user_id=user_id)).encode() for user_id in ("one", "other"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[%s],"events":[]}' % ONE,
        b'{"events":[],"events":[%s]}' % ONE,
        b'{"events":[%s],"events":[%s]}' % (ONE, OTHER),
        b'{"events" : [%s],\n"user_id":"vera", "events" : [%s]}' % (ONE, OTHER),
        b'{"events":[%s],"ev\\u0065nts":[%s]}' % (ONE, OTHER),
        b'{"\\u0065vents":[%s],"events":[%s]}' % (ONE, OTHER),
        b'{"e\\u0076ents":[%s],"e\\u0076ents":[%s]}' % (ONE, OTHER),
    ],
)
def test_events_that_are_there_twice_are_refused_and_no_half_is_taken(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode_body(body, JSON, SHAPE)
    assert (caught.value.status, caught.value.code) == (400, "not_events")
    assert "'events' is there twice" in caught.value.detail
    columns = decode_body(body.replace(b"\n", b"") + b"\n" + ONE, NDJSON, SHAPE)
    assert columns.user_ids == ["one"]
    assert [error.index for error in columns.errors] == [0]


@pytest.mark.parametrize("user_id", ["vera", "events", "\\u0065vents", "a\\u0076", "\\\\u0076"])
def test_the_word_events_elsewhere_does_no_harm(user_id: str) -> None:
    body = b'{"events":[' + json.dumps(GOOD).replace("user-1", user_id).encode() + b"]}"
    columns = decode_body(body, JSON, SHAPE)
    assert columns.user_ids == [json.loads(f'"{user_id}"')]


def test_an_object_with_events_means_them_whatever_its_neighbours_are() -> None:
    mixed = json.dumps(event(user_id="a", events=[event(user_id="b"), event(user_id="c")])).encode()
    for body, form, others in (
        (mixed, JSON, []),
        (mixed, NDJSON, []),
        (mixed + b"\n" + ONE, JSON, ["one"]),
        (mixed + b"\n" + ONE, NDJSON, ["one"]),
        (mixed + b"\n" + ONE + b"\nbad", NDJSON, ["one"]),
    ):
        assert decode_body(body, form, SHAPE).user_ids == ["b", "c", *others]


@pytest.mark.parametrize("document", [[], {"events": []}])
def test_no_events_are_no_error(document: Any) -> None:
    columns = decode(document)
    assert columns.total == 0
    assert columns.features.shape == (0, 3)


def test_an_integer_user_id_is_its_decimal_string() -> None:
    beyond_64_bits = 2**70
    body = json.dumps([event(user_id=42), event(user_id=beyond_64_bits)]).encode()
    columns = decode_body(body, JSON, EventShape(features=3, max_events=2, max_user_id_bytes=22))
    assert columns.user_ids == ["42", str(beyond_64_bits)]


@pytest.mark.parametrize(
    ("bad", "field", "code"),
    [
        (event(user_id=""), "user_id", "empty"),
        (event(user_id="x" * 17), "user_id", "too_long"),
        (event(user_id="é" * 9), "user_id", "too_long"),
        (event(user_id=None), "user_id", "wrong_type"),
        (event(user_id=True), "user_id", "wrong_type"),
        (event(user_id=1.5), "user_id", "wrong_type"),
        (event(user_id=["a"]), "user_id", "wrong_type"),
        (event(timestamp="1"), "timestamp", "wrong_type"),
        (event(timestamp=None), "timestamp", "wrong_type"),
        (event(timestamp=False), "timestamp", "wrong_type"),
        (event(timestamp=10**400), "timestamp", "out_of_range"),
        (event(features=[1, 2]), "features", "wrong_length"),
        (event(features=[]), "features", "wrong_length"),
        (event(features=[1, 2, 3, 4]), "features", "wrong_length"),
        (event(features=[1, 2, "3"]), "features", "wrong_type"),
        (event(features=[1, 2, None]), "features", "wrong_type"),
        (event(features=[1, 2, [3]]), "features", "wrong_type"),
        (event(features={"a": 1}), "features", "wrong_type"),
        (event(features=[1, 2, 1e300]), "features", "out_of_range"),
        (event(features=[1, 2, 10**400]), "features", "out_of_range"),
        ({"timestamp": 1, "features": [1, 2, 3]}, "user_id", "missing"),
        ({"user_id": "a", "features": [1, 2, 3]}, "timestamp", "missing"),
        ({"user_id": "a", "timestamp": 1}, "features", "missing"),
        ({}, "user_id", "missing"),
        (5, "event", "wrong_type"),
        (None, "event", "wrong_type"),
        ("text", "event", "wrong_type"),
        ([GOOD], "event", "wrong_type"),
    ],
)
def test_a_malformed_event_is_named_and_its_neighbours_kept(
    bad: Any, field: str, code: str
) -> None:
    columns = decode([GOOD, bad, event(user_id="user-2")])
    assert columns.total == 3
    assert columns.user_ids == ["user-1", "user-2"]
    assert columns.positions.tolist() == [0, 2]
    (error,) = columns.errors
    assert (error.index, error.field, error.code) == (1, field, code)
    assert error.detail


def test_a_number_beyond_float64_spoils_its_event_only() -> None:
    body = (
        b'[{"user_id":"a","timestamp":1e999,"features":[1,2,3]},' + json.dumps(GOOD).encode() + b"]"
    )
    columns = decode_body(body, JSON, SHAPE)
    assert columns.user_ids == ["user-1"]
    assert columns.errors[0].code == "out_of_range"


@pytest.mark.parametrize("form", [JSON, NDJSON])
@pytest.mark.parametrize(
    ("field", "text", "code", "said"),
    [
        ("timestamp", "NaN", "out_of_range", "NaN"),
        ("timestamp", "Infinity", "out_of_range", "infinite"),
        ("timestamp", "-Infinity", "out_of_range", "infinite"),
        ("timestamp", "1e999", "out_of_range", "float64"),
        ("timestamp", "9" * 4000, "out_of_range", "float64"),
        ("features", "[1, NaN, 3]", "out_of_range", "features[1] is NaN"),
        ("features", "[1, 2, -Infinity]", "out_of_range", "features[2] is infinite"),
        ("features", "[-1e999, 2, 3]", "out_of_range", "features[0]"),
        ("features", "[1, 2, %s]" % ("9" * 4000), "out_of_range", "features[2]"),
        ("features", "NaN", "wrong_type", "array"),
        ("user_id", "NaN", "out_of_range", "too large"),
        ("user_id", '"\\ud800"', "wrong_type", "surrogate"),
    ],
)
def test_what_json_has_not_costs_its_event_and_never_its_neighbours(
    form: Format, field: str, text: str, code: str, said: str
) -> None:
    odd = json.dumps(event(**{field: "SPLICE"})).replace('"SPLICE"', text)
    good = [json.dumps(event(user_id=f"user-{n}")) for n in range(2)]
    lines = [good[0], odd, good[1]]
    bodies = ["\n".join(lines)]
    if form is JSON:
        array = "[" + ",".join(lines) + "]"
        bodies += [array, '{"events": ' + array + "}", '{"else": NaN, "events": ' + array + "}"]
    for body in bodies:
        columns = decode_body(body.encode(), form, SHAPE)
        assert columns.user_ids == ["user-0", "user-1"]
        (error,) = columns.errors
        assert (error.index, error.field, error.code) == (1, field, code)
        assert said in error.detail


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -1e999}'])
def test_what_json_has_not_does_no_harm_in_a_field_that_is_not_looked_at(text: str) -> None:
    assert_good(decode_body(b"[" + json.dumps(GOOD)[:-1].encode() + b', "x": %s}]' % text.encode(),
                            JSON, SHAPE))  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (event(features=[1, None, 3]), "features[1] is null (pandas writes NaN so)"),
        (event(features=[1, 2, "3"]), "features[2] is a number in quotes"),
        (event(features=[1, 2, "x"]), "features[2] is text"),
        (event(features=[True, 2, 3]), "features[0] is true"),
        (event(features=None), "got null"),
        (event(timestamp=None), "got null"),
        (event(timestamp="1700000000"), "a number in quotes (send it without them)"),
        (event(timestamp="2026-11-28T12:00:00Z"), "datetime.timestamp()"),
        (event(user_id=None), "got null"),
        (event(user_id=7.0), "send a string"),
    ],
)
def test_a_wrong_type_is_named_with_what_to_send(bad: Any, said: str) -> None:
    (error,) = decode([GOOD, bad]).errors
    assert said in error.detail


def test_features_are_called_by_their_names_where_they_have_some() -> None:
    shape = EventShape(3, 50, 16, ("age", "amount", "hour"))
    odd = [[1, None, 3], [1, 2, 1e300], [1], "x"]
    body = json.dumps([event(features=row) for row in odd]).encode()
    details = [error.detail for error in decode_body(body, JSON, shape).errors]
    assert "features[1] (amount) is null" in details[0]
    assert "features[2] (hour) is infinite" in details[1]
    assert "3 numbers (age, amount, hour), got 1" in details[2]
    assert "an array of 3 numbers (age, amount, hour), got text" in details[3]


@pytest.mark.parametrize("field", ["instances", "inputs", "dataframe_split", "batches"])
def test_a_body_for_another_server_is_recognised_and_shown_ours(field: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode({field: [[1, 2, 3]]})
    assert caught.value.code == "not_events"
    assert f"'{field}'" in caught.value.detail
    assert '{"events": [{"user_id"' in caught.value.detail


def test_the_largest_float32_is_kept_and_what_rounds_to_infinity_refused() -> None:
    rounds_up = 2.0**128 - 2.0**103
    columns = decode([event(features=[-np.nextafter(rounds_up, 0), 0, 0])])
    assert columns.features[0, 0] == -np.finfo(np.float32).max
    (error,) = decode([event(features=[-rounds_up, 0, 0])]).errors
    assert error.code == "out_of_range"


def test_a_request_of_malformed_events_only_is_still_understood() -> None:
    columns = decode({"user_id": "a"})
    assert columns.total == 1
    assert columns.user_ids == []
    assert columns.features.shape == (0, 3)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "not_events"),
        (b"null", "not_events"),
        (b"5", "not_events"),
        (b'"text"', "not_events"),
        (b'{"event": []}', "not_events"),
        (b'{"events": 5}', "events_not_array"),
        (b'{"events": null}', "events_not_array"),
        (b'{"events": {}}', "events_not_array"),
        (b"NaN", "not_events"),
        (b'{"events": [', "not_json"),
        (b"[{}]trailing", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'[{"user_id":"\xff","timestamp":1,"features":[1,2,3]}]', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b"[" * 10_000 + b"]" * 10_000, "not_json"),
        (b" ", "not_json"),
        (b"", "not_json"),
        (b"\x00", "not_json"),
    ],
)
def test_a_body_without_events_is_a_bad_request(body: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_body(body, JSON, SHAPE)
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize("document", [[GOOD] * 51, [5] * 51])
def test_too_many_events_are_refused_whether_good_or_bad(document: Any) -> None:
    with pytest.raises(RequestError) as caught:
        decode(document)
    assert (caught.value.status, caught.value.code) == (413, "too_many_events")
    assert "51" in caught.value.detail
    assert "50" in caught.value.detail


def test_a_body_of_very_many_values_is_refused_before_it_is_split() -> None:
    body = b"[" + b"5," * (50 * 19) + b"5,5]"
    with pytest.raises(RequestError) as caught:
        decode_body(body, JSON, SHAPE)
    assert (caught.value.status, caught.value.code) == (413, "too_many_values")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
EVENTS = st.fixed_dictionaries(
    {
        "user_id": st.text(max_size=20) | st.integers(),
        "timestamp": FLOATS | st.integers(),
        "features": st.lists(FLOATS | st.integers(-5, 5), min_size=2, max_size=4),
    }
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)

# Events with a field that is not looked at; raw bytes then take the place of its text.
IGNORING_EVENTS = st.builds(lambda event: {"else": "SPLICE", **event}, st.just(GOOD) | EVENTS)
RAW_BYTES = st.binary(max_size=4) | st.sampled_from(
    [b"\xff", b"\xc3", b"\xed\xa0\x80", "é".encode(), b"\x00", b"\\", b"\\ud800", b'"', b"\n"]
)


MIXED_EVENTS = EVENTS.map(lambda event: {**event, "events": [GOOD]})


def json_of(events: list[Any]) -> bytes:
    return json.dumps(events).encode("utf-8", "replace")


def json_by_key_of(events: list[Any]) -> bytes:
    """Write an object with `events` once for each event."""
    members = (b'"events":' + json_of([event]) for event in events)
    return b"{" + b",".join(members) + b"}"


def lines_of(events: list[Any]) -> bytes:
    return b"\n".join(json.dumps(event).encode("utf-8", "replace") for event in events)


def assert_equal(one: EventColumns | RequestError, other: EventColumns | RequestError) -> None:
    if isinstance(one, RequestError) or isinstance(other, RequestError):
        assert isinstance(one, RequestError)
        assert isinstance(other, RequestError)
        assert (one.status, one.code, one.detail) == (other.status, other.code, other.detail)
        return
    assert one.total == other.total
    assert one.user_ids == other.user_ids
    assert one.positions.tolist() == other.positions.tolist()
    assert one.timestamps.tobytes() == other.timestamps.tobytes()
    assert one.features.tobytes() == other.features.tobytes()
    assert one.features.shape == other.features.shape
    assert one.errors == other.errors


@pytest.mark.parametrize(
    ("write", "reader"),
    [(json_of, decoding_json), (json_by_key_of, decoding_json), (lines_of, decoding_ndjson)],
)
@given(events=st.lists(EVENTS | IGNORING_EVENTS | MIXED_EVENTS, max_size=8), spliced=RAW_BYTES)
def test_the_fast_and_the_slow_path_agree(
    write: Callable[[list[Any]], bytes],
    reader: Any,
    events: list[dict[str, Any]],
    spliced: bytes,
) -> None:
    body = write(events).replace(b"SPLICE", spliced)
    typed = reader.clean_events(body, SHAPE)
    fast = columns_of_clean(typed, SHAPE) if typed is not None else None
    try:
        slow = reader.columns_of_faulty(body, SHAPE)
    except RequestError:
        assert fast is None
        return
    if fast is None:
        half = b"\\ud800" in body  # which the slow path lets pass in a field that is not looked at
        several = b'"events"' in body  # on a line, which the slow path alone reads
        assert slow.errors or half or several, "the fast path gave up, and nothing was wrong"
        return
    assert slow.errors == []
    assert_equal(fast, slow)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_are_refused_in_a_field_that_is_not_looked_at(raw: bytes) -> None:
    body = json.dumps(event(other="SPLICE")).encode().replace(b"SPLICE", raw)
    for document in (body, b"[" + body + b"]", b'{"events":[' + body + b"]}"):
        with pytest.raises(RequestError) as caught:
            decode_body(document, JSON, SHAPE)
        assert (caught.value.status, caught.value.code) == (400, "not_json")
    columns = decode_body(body + b"\n" + json.dumps(GOOD).encode(), NDJSON, SHAPE)
    assert columns.positions.tolist() == [1]
    assert [error.code for error in columns.errors] == ["not_json"]


BODIES = st.lists(
    st.tuples(st.lists(EVENTS, max_size=3).map(json_of), st.just(JSON))
    | st.tuples(st.lists(EVENTS, max_size=3).map(lines_of), st.just(NDJSON))
    | st.tuples(st.binary(max_size=20), st.sampled_from([JSON, NDJSON, ARROW]))
    | st.tuples(st.integers(45, 55).map(lambda count: json_of([GOOD] * count)), st.just(JSON))
    | st.tuples(st.sampled_from([json_of([GOOD]), json_of([event(user_id=7)])]), st.just(JSON)),
    max_size=8,
)


@given(BODIES)
def test_bodies_decoded_together_give_what_each_gives_alone(
    bodies: list[tuple[bytes, Format]],
) -> None:
    together = decode_together(bodies, SHAPE)
    assert len(together) == len(bodies)
    for body, outcome in zip(bodies, together, strict=True):
        (alone,) = decode_together([body], SHAPE)
        assert_equal(outcome, alone)


def test_very_many_events_decoded_together_are_each_where_they_belong() -> None:
    shape = EventShape(features=3, max_events=5000, max_user_id_bytes=16)
    counts = [1, 3000, 2000, 0, 5000, 1, 5001, 2]
    bodies = [
        (json_of([event(user_id=f"{place}", timestamp=n) for n in range(count)]), JSON)
        for place, count in enumerate(counts)
    ]
    *kept, refused, last = decode_together(bodies, shape)
    assert isinstance(refused, RequestError)
    for place, columns in [*enumerate(kept), (7, last)]:
        assert isinstance(columns, EventColumns)
        assert columns.user_ids == [str(place)] * counts[place]
        assert columns.timestamps.tolist() == list(range(counts[place]))


@given(st.lists(VALUES | EVENTS, max_size=6))
def test_every_event_is_either_kept_or_named(events: list[Any]) -> None:
    columns = decode_body(json.dumps(events).encode(), JSON, SHAPE)
    named = {error.index for error in columns.errors}
    assert named.isdisjoint(columns.positions.tolist())
    assert named | set(columns.positions.tolist()) == set(range(len(events)))
    assert len(columns.user_ids) == len(columns.timestamps) == len(columns.features)
    assert np.isfinite(columns.features).all()
    assert np.isfinite(columns.timestamps).all()


@given(st.binary(max_size=64))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    try:
        decode_body(body, JSON, SHAPE)
    except RequestError as error:
        assert error.status in (400, 413)


def test_integers_of_thousands_of_digits_are_refused_before_they_cost_time() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(MAX_INTEGER_DIGITS)  # as the worker does when it loads
    try:
        body = b'[{"user_id": %s, "timestamp": 1, "features": [1, 2, 3]}]' % (b"9" * 4000)
        columns = decode_body(body, JSON, SHAPE)
    finally:
        sys.set_int_max_str_digits(before)
    assert [error.code for error in columns.errors] == ["out_of_range"]
