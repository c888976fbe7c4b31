"""One event a line; a line that is not JSON is one malformed event."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from handler.decoding import NDJSON, decode
from handler.errors import RequestError
from handler.events import EventColumns, EventShape

SHAPE = EventShape(features=3, max_events=50, max_user_id_bytes=16)
GOOD = b'{"user_id":"user-1","timestamp":1.5,"features":[1,2,3]}'
OTHER = GOOD.replace(b"user-1", b"user-2")


def lines(body: bytes) -> EventColumns:
    return decode(body, NDJSON, SHAPE)


@pytest.mark.parametrize(
    "body",
    [
        GOOD + b"\n" + OTHER,
        GOOD + b"\n" + OTHER + b"\n",
        GOOD + b"\r\n" + OTHER + b"\r\n",
        b"\n \n" + GOOD + b"\n\r\n\t\n\n" + OTHER + b"\n\n",
        b" " + GOOD + b" \n  " + OTHER,
    ],
)
def test_lines_end_in_lf_or_crlf_and_blank_ones_do_not_count(body: bytes) -> None:
    columns = lines(body)
    assert (columns.total, columns.errors) == (2, [])
    assert columns.user_ids == ["user-1", "user-2"]
    assert columns.positions.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("bad", "field", "code"),
    [
        (b"{", "event", "not_json"),
        (b"NaN", "event", "wrong_type"),
        (b"\xff", "event", "not_json"),
        (GOOD.replace(b"1.5", b"NaN"), "timestamp", "out_of_range"),
        (GOOD + b"{", "event", "not_json"),
        (GOOD + b"," + OTHER, "event", "not_json"),
        (b"[" * 100_000, "event", "not_json"),
        (b"[5]", "event", "wrong_type"),
        (b"[5,", "event", "not_json"),
        (b'{"events":5}', "event", "wrong_type"),
        (b"7", "event", "wrong_type"),
        (b"{}", "event", "wrong_type"),
        (b'{"user_id":"u"}', "timestamp", "missing"),
        (GOOD.replace(b"1.5", b'"x"'), "timestamp", "wrong_type"),
        (GOOD.replace(b",3]", b"]"), "features", "wrong_length"),
    ],
)
def test_a_bad_line_is_one_skipped_event_and_its_neighbours_are_kept(
    bad: bytes, field: str, code: str
) -> None:
    columns = lines(b"\n".join([GOOD, b"", bad, OTHER]))
    assert (columns.total, columns.user_ids) == (3, ["user-1", "user-2"])
    assert columns.positions.tolist() == [0, 2]
    (error,) = columns.errors
    assert (error.index, error.field, error.code) == (1, field, code)


@pytest.mark.parametrize(
    "line",
    [
        b'{"events":[' + OTHER + b"," + OTHER + b"]}",
        b"[" + OTHER + b"," + OTHER + b"]",
        OTHER + OTHER,
        OTHER + b"\r" + OTHER,
        b"\xef\xbb\xbf" + OTHER + OTHER,
        b"[]" + OTHER + b" [" + OTHER + b"] ",
    ],
)
def test_a_line_may_hold_several_events_and_indices_run_on(line: bytes) -> None:
    columns = lines(b"\n".join([GOOD, line, b"x", b'{"events":[' + GOOD + b",7]}"]))
    assert columns.user_ids == ["user-1", "user-2", "user-2", "user-1"]
    assert columns.positions.tolist() == [0, 1, 2, 4]
    assert [(error.index, error.code) for error in columns.errors] == [
        (3, "not_json"),
        (5, "wrong_type"),
    ]


def test_an_event_over_several_lines_is_none_between_lines() -> None:
    pretty = json.dumps(json.loads(GOOD), indent=0).encode()
    columns = lines(OTHER + b"\n" + pretty)
    assert columns.user_ids == ["user-2"]
    assert {error.code for error in columns.errors} >= {"not_json"}


@pytest.mark.parametrize("shape", [lambda e: {"events": [e, e]}, lambda e: [e, e]])
def test_json_printed_over_lines_is_read_whole(shape: Callable[[Any], Any]) -> None:
    columns = lines(json.dumps(shape(json.loads(GOOD)), indent=2).encode())
    assert (columns.user_ids, columns.errors) == (["user-1", "user-1"], [])


@pytest.mark.parametrize("body", [b"\n", b" \r\n\n"])
def test_blank_lines_alone_are_no_events(body: bytes) -> None:
    assert lines(body).total == 0


@pytest.mark.parametrize("line", [GOOD, b"x"])
def test_too_many_lines_are_refused_whether_good_or_bad(line: Any) -> None:
    with pytest.raises(RequestError) as caught:
        lines(b"\n".join([line] * 51))
    assert (caught.value.status, caught.value.code) == (413, "too_many_events")


@pytest.mark.parametrize("body", [b"\n" * 1000, b'{"a":[' + b"1," * 1000 + b"1]}"])
def test_very_many_lines_or_values_are_refused_before_they_are_split(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        lines(body)
    assert (caught.value.status, caught.value.code) == (413, "too_many_values")
