"""What people send by hand gets its answer, or an error that says what to send instead."""

import gzip
import io
import json
import re
import shlex
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from handler.errors import RequestError
from handler.reading import Request, read_requests
from handler.settings import HandlerSettings

EVENTS = [
    {"user_id": f"user-{number}", "timestamp": 1.5, "features": [1, 2, number]}
    for number in range(3)
]
JSON = json.dumps({"events": EVENTS}).encode()
LINES = b"\n".join(json.dumps(event).encode() for event in EVENTS) + b"\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SETTINGS = HandlerSettings(max_body_bytes=1 << 20)


def _arrow() -> bytes:
    table = pa.Table.from_pylist(
        EVENTS,
        pa.schema({"user_id": pa.string(), "timestamp": pa.float64(),
                   "features": pa.list_(pa.float32(), 3)}),
    )  # fmt: skip
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


ARROW = _arrow()
PRETTY = json.dumps({"events": EVENTS}, indent=2).encode()


def _read(body: bytes | None, content_type: str | None = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        named["content-type"] = content_type
    (outcome,) = read_requests([Request(body, named)], SETTINGS)
    return outcome


def assert_taken(outcome: Any) -> None:
    assert not isinstance(outcome, RequestError), outcome.detail
    assert outcome.columns.errors == []
    assert outcome.columns.timestamps.tolist() == [1.5, 1.5, 1.5]
    assert outcome.columns.user_ids == ["user-0", "user-1", "user-2"]
    assert outcome.columns.features.tolist() == [[1, 2, 0], [1, 2, 1], [1, 2, 2]]


def refusal(outcome: Any) -> RequestError:
    assert isinstance(outcome, RequestError)
    assert outcome.status == 400
    return outcome


NOT_TELLING = [
    None,
    "",
    "text/plain",
    "application/octet-stream",
    "multipart/form-data; boundary=x",
]
OF_LINES = [
    "application/x-ndjson", "application/ndjson; charset=utf-8", "Application/JSONL",
    "text/x-ndjson", "application/jsonlines", "application/x-jsonlines", "application/x-ldjson",
]  # fmt: skip


@pytest.mark.parametrize(
    "content_type", [*NOT_TELLING, "application/json", "application/problem+json", *OF_LINES]
)
@pytest.mark.parametrize(
    "body",
    [
        JSON, LINES, PRETTY, LINES.replace(b"\n", b""), LINES.replace(b"\n", b"\r\n"),
        b"\n" + LINES, json.dumps(EVENTS).encode(), b'{"events": []}\n' + JSON + b"\n",
        b"\n".join(json.dumps(event, indent=2).encode() for event in EVENTS),  # as jq prints
    ],
)  # fmt: skip
def test_json_and_lines_are_taken_under_any_type_and_with_a_byte_order_mark(
    content_type: str | None, body: bytes
) -> None:
    assert_taken(_read(body, content_type))
    assert_taken(_read(BYTE_ORDER_MARK + body, content_type))


@pytest.mark.parametrize("content_type", [*NOT_TELLING, "application/json"])
def test_a_bad_line_under_another_type_is_one_skipped_event(content_type: str | None) -> None:
    outcome = _read(LINES + b"{bad\n" + LINES, content_type)
    assert len(outcome.columns.user_ids) == 6
    assert [(error.index, error.code) for error in outcome.columns.errors] == [(3, "not_json")]


@pytest.mark.parametrize(
    "content_type", [*NOT_TELLING, "application/json", "application/vnd.apache.arrow.stream"]
)
def test_an_arrow_stream_is_recognised_by_its_first_bytes(content_type: str | None) -> None:
    assert_taken(_read(ARROW, content_type))


PACKERS: dict[str, Any] = {
    "gzip": gzip.compress,
    "x-gzip": lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]),
    "deflate": zlib.compress,
    "zstd": lambda body: pa.compress(body, "zstd", asbytes=True),
    "br": lambda body: pa.compress(body, "brotli", asbytes=True),
}


@pytest.mark.parametrize("encoding", PACKERS)
@pytest.mark.parametrize("body", [JSON, LINES, BYTE_ORDER_MARK + JSON, ARROW])
def test_a_compressed_body_is_unpacked(encoding: str, body: bytes) -> None:
    assert_taken(_read(PACKERS[encoding](body), content_encoding=encoding.upper()))
    if encoding in ("gzip", "x-gzip", "zstd"):
        assert_taken(_read(PACKERS[encoding](body), "application/json"))
        assert_taken(_read(PACKERS[encoding](body), "application/gzip"))


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_body_that_unpacks_to_more_than_the_limit_is_refused(encoding: str) -> None:
    limit = SETTINGS.max_body_bytes
    assert_taken(_read(PACKERS[encoding](JSON.ljust(limit)), content_encoding=encoding))
    bomb = _read(PACKERS[encoding](JSON.ljust(64 * limit)), content_encoding=encoding)
    assert isinstance(bomb, RequestError)
    assert (bomb.status, bomb.code) == (413, "body_too_large")


@pytest.mark.parametrize("encoding", PACKERS)
def test_a_compressed_body_that_is_not_whole_is_refused(encoding: str) -> None:
    packed = PACKERS[encoding](JSON)
    for spoilt in (packed[:-1], packed[:9], packed[:1], JSON, b"\x00"):
        assert refusal(_read(spoilt, content_encoding=encoding)).code == "not_unpacked"


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip", "x\ud800", "x" * 5000])
def test_another_encoding_is_told_which_are_taken(encoding: str) -> None:
    error = refusal(_read(JSON, content_encoding=encoding))
    assert error.code == "unsupported_content_encoding"
    assert "gzip, zstd, br or deflate" in error.detail
    assert len(error.detail) < 300


@pytest.mark.parametrize(
    ("body", "content_type", "code", "said"),
    [
        (None, "application/x-www-form-urlencoded", "unsupported_content_type",
         "-H 'Content-Type: application/json'"),
        (None, None, "unsupported_content_type", "Content-Type: application/json"),
        (None, "multipart/form-data; boundary=x", "unsupported_content_type", "named data"),
        (b"", None, "empty_body", "POST events"),
        (b"ARROW1\x00\x00", None, "unsupported_content_type", "new_stream"),
        (b"ARROW1\x00\x00", "application/vnd.apache.arrow.stream", "unsupported_content_type",
         "new_stream"),
        (b"x", "application/vnd.apache.arrow.file", "unsupported_content_type",
         "application/vnd.apache.arrow.stream"),
        (b"PAR1", "application/vnd.apache.parquet", "unsupported_content_type", "new_stream"),
        (b"\x80\x04\x95", None, "unsupported_content_type", "pickle"),
        (b"\x82\xa7user_id", "application/msgpack", "unsupported_content_type", "MessagePack"),
        (b"PK\x03\x04", None, "unsupported_content_type", "zip"),
        (JSON, "application/vnd.apache.arrow.stream", "not_arrow", "application/json"),
        (JSON.decode().encode("utf-16"), "application/json", "not_json", "UTF-16"),
        (JSON.decode().encode("utf-16-le"), None, "not_json", "UTF-16"),
        (JSON.decode().encode("utf-16-be"), "application/x-ndjson", "not_json", "UTF-16"),
        (JSON.replace(b"user-0", b"\xfc"), None, "not_json", "encode it as UTF-8"),
        (b'{"events": [1], "events": []}', None, "not_events", "twice"),
        (b",".join(LINES.splitlines()), "application/json", "not_json", "put brackets around"),
        (b"{bad}\n" + LINES, "application/json", "not_json", "application/x-ndjson"),
    ],
)  # fmt: skip
def test_what_is_not_taken_is_named_with_what_to_send(
    body: bytes | None, content_type: str | None, code: str, said: str
) -> None:
    error = refusal(_read(body, content_type))
    assert error.code == code
    assert said in error.detail
    assert len(error.detail) < 500


@pytest.mark.parametrize(
    ("name", "said"),
    [("dry_run", "X-Dry-Run: 1"), ("X-Dry-Run", "X-Dry-Run: 1"), ("window", "/median"),
     ("version", "/predictions/scorer/{version}"), ("source", "leave it out")],
)  # fmt: skip
def test_what_comes_beside_the_events_is_refused_and_told_where_it_belongs(
    name: str, said: str
) -> None:
    (error,) = read_requests([Request(JSON, {}, beside=(name, "z"))], SETTINGS)
    assert isinstance(error, RequestError)
    assert (error.status, error.code) == (400, "unknown_parameter")
    assert f"'{name}'" in error.detail
    assert said in error.detail


CSV = "user_id,timestamp,f1,f2,f3\nuser-0,1.5,1,2,0\nuser-1,1.5,1,2,1\nuser-2,1.5,1,2,2\n"
OTHER_ORDER = "timestamp;a;User_ID;b;c\n" + "".join(
    f"1.5;1;user-{number};2;{number}\n" for number in range(3)
)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(CSV, None), (CSV, "text/csv"), (BYTE_ORDER_MARK.decode() + CSV, "application/json"),
     (CSV.partition("\n")[2], "text/csv; charset=utf-8"), (CSV.replace(",", ";"), "text/plain"),
     (CSV.replace(",", "\t"), "text/csv"), (CSV.replace("\n", "\r\n\r\n"), "text/csv"),
     (CSV.replace("user_id,timestamp", '"user_id","timestamp"'), None),
     (CSV.replace("user_id,timestamp", "userid,Timestamp"), None), (OTHER_ORDER, None),
     (OTHER_ORDER.replace("timestamp;a;", "a;timestamp;").replace("1.5;1;", "1;1.5;"), "text/csv")],
)  # fmt: skip
def test_csv_is_answered_with_the_command_that_converts_it(
    tmp_path: Path, body: str, content_type: str | None
) -> None:
    error = refusal(_read(body.encode(), content_type))
    assert error.code == "unsupported_content_type"
    command = re.search(r'python3 (-c ".*?") > events\.ndjson', error.detail)
    assert command is not None
    (tmp_path / "events.csv").write_bytes(body.encode())
    converted = subprocess.run(
        [sys.executable, *shlex.split(command[1])],
        cwd=tmp_path, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert_taken(_read(converted, "application/x-ndjson"))


def test_neighbours_in_the_batch_are_read_whatever_one_was_sent_as() -> None:
    bodies = [JSON, b"\xfe\xff", LINES, gzip.compress(JSON), ARROW, None]
    outcomes = read_requests([Request(body, {}) for body in bodies], SETTINGS)
    for place in (0, 2, 3, 4):
        assert_taken(outcomes[place])
    assert isinstance(outcomes[1], RequestError)
    assert isinstance(outcomes[5], RequestError)
