"""One event a line; a line that is not JSON is one malformed event."""

import json
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
        (b"NaN", "event", "not_json"),
        (b"\xff", "event", "not_json"),
        (b"\xef\xbb\xbf" + GOOD, "event", "not_json"),
        (GOOD.replace(b"1.5", b"NaN"), "event", "not_json"),
        (GOOD + OTHER, "event", "not_json"),
        (GOOD + b"," + OTHER, "event", "not_json"),
        (GOOD + b"\r" + OTHER, "event", "not_json"),
        (b"[" * 100_000, "event", "not_json"),
        (b"[" + GOOD + b"]", "event", "wrong_type"),
        (b"7", "event", "wrong_type"),
        (b"{}", "user_id", "missing"),
        (b'{"events":[' + GOOD + b"]}", "user_id", "missing"),
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


def test_an_event_over_several_lines_is_no_event() -> None:
    """Together with two events on one line there are as many events as lines: still no."""
    pretty = json.dumps(json.loads(GOOD), indent=0).encode()
    columns = lines(GOOD + b"".join([OTHER] * pretty.count(b"\n")) + b"\n" + pretty)
    assert columns.user_ids == []
    assert {error.code for error in columns.errors} >= {"not_json"}


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
