"""How a body is to be read: by its content type and its first bytes. Pure.

The type tells JSON, lines of JSON and Arrow apart. Where it says nothing, as clients forget it and
tools send their own, the first bytes do: no two formats begin alike. Lines and JSON do, so a body
of no known type is JSON until its reader finds that it is lines.
"""

import re
from functools import lru_cache

from handler.csv_advice import advice, is_csv
from handler.decoding import ARROW, JSON, NDJSON, Format
from handler.errors import RequestError

_ARROW_TYPE = "application/vnd.apache.arrow.stream"
_ARROW_FILE_TYPE = "application/vnd.apache.arrow.file"
# `application/x-ndjson`, `text/jsonl` and all that tools make of them.
_LINES = re.compile(
    r"(application|text)/(x-)?(ndjson|ldjson|jsonl|jsonlines|json-lines|jsonstream"
    r"|json-stream|stream\+json)"
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ARROW_START = b"\xff\xff\xff\xff"  # opens each message since Arrow 0.15
_JSON_STARTS = b"[{ \t\r\n"
_KEPT_TYPES = 64  # clients send the same ones again and again

# First bytes of what people have at hand -> what it is, and what to do.
_OTHER_FORMATS = (
    (b"ARROW1", "an Arrow file (Feather)", "write a stream, in Python pyarrow.ipc.new_stream()"),
    (b"PAR1", "Parquet", "read it with pyarrow.parquet, write it with pyarrow.ipc.new_stream()"),
    (b"\x89HDF", "HDF5", "write an Arrow stream: pyarrow.ipc.new_stream()"),
    (b"Obj\x01", "Avro", "write one JSON object a line"),
    (b"PK\x03\x04", "a zip archive", "send what is in it, or use gzip"),
    (tuple(bytes([first]) for first in range(0x80, 0xA0)), "a pickle or MessagePack",
     "send JSON, NDJSON or an Arrow stream"),
    (b"BZh", "bzip2", "use gzip or zstd"),
    (b"\xfd7zXZ", "xz", "use gzip or zstd"),
)  # fmt: skip
_UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def recognise(content_type: str, body: bytes) -> tuple[Format, bytes]:
    """Return how to read a body, and the body without its byte order mark.

    `content_type` is a header's value, perhaps "". Raises `RequestError` 400 for a format that is
    not read, saying what to send instead.
    """
    media_type, form = _declared(content_type)
    if form is not ARROW and body[0] in _JSON_STARTS and body[1:2] != b"\x00":
        return form, body
    if body.startswith(_ARROW_START):
        return ARROW, body
    if form is ARROW:
        _refuse_other_formats(body)
        _refuse_json(body)
        return form, body
    body = body.removeprefix(_BYTE_ORDER_MARK)
    _refuse_other_formats(body)
    _refuse_other_text(media_type, body)
    return form, body


@lru_cache(_KEPT_TYPES)
def _declared(content_type: str) -> tuple[str, Format]:
    """Return the media type and how it says that the body is to be read."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == _ARROW_FILE_TYPE:
        raise RequestError(
            400, "unsupported_content_type", f"{media_type}: write a stream, and send {_ARROW_TYPE}"
        )
    if media_type == _ARROW_TYPE:
        return media_type, ARROW
    return media_type, NDJSON if _LINES.fullmatch(media_type) else JSON


def _refuse_json(body: bytes) -> None:
    if body.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in (b"[", b"{"):
        raise RequestError(
            400,
            "not_arrow",
            "the body begins like JSON: send Content-Type: application/json, or "
            "application/x-ndjson for lines",
        )


def _refuse_other_formats(body: bytes) -> None:
    for start, name, instead in _OTHER_FORMATS:
        if body.startswith(start):
            raise RequestError(400, "unsupported_content_type", f"the body is {name}: {instead}")


def _refuse_other_text(media_type: str, body: bytes) -> None:
    if body.startswith(_UNICODE_MARKS) or b"\x00" in body[:2]:
        raise RequestError(
            400,
            "not_json",
            "the body is UTF-16 or UTF-32: encode it as UTF-8 (in PowerShell -Encoding utf8, "
            "elsewhere iconv -f UTF-16 -t UTF-8)",
        )
    if media_type == "text/csv" or is_csv(body):
        raise RequestError(400, "unsupported_content_type", advice(body))
