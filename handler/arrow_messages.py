"""What an Arrow IPC stream says of itself, looked at before Arrow sees a byte of it. Pure.

Arrow takes a message's word for how much memory to fill: a compressed buffer names its size, a
dictionary's delta makes a copy of all that came before, and what a flatbuffer names a thousand
times, say a field or a text of a schema, is copied a thousand times. pyarrow has no switch against
any of it, so the stream is cut into messages here, and the few fields that tell are read from their
flatbuffers, by the layout of Arrow's Message.fbs and Schema.fbs; Arrow itself verifies the rest.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache

from handler.errors import RequestError

# A record batch costs some tens of microseconds however few rows it has.
MAX_MESSAGES = 1000

# Room for about a thousand columns.
MAX_METADATA_BYTES = 64 * 1024

_FILE_MAGIC = b"ARROW1"
_CONTINUATION = 0xFFFFFFFF  # opens each message since Arrow 0.15
_VERSION_5 = 4  # MetadataVersion.V5: Arrow 1.0 (2020) and later
_HEADER_SCHEMA, _HEADER_DICTIONARY, _HEADER_RECORDS = 1, 2, 3  # MessageHeader
_VERSION, _HEADER_TYPE, _HEADER, _BODY_LENGTH, _MESSAGE_PAIRS = range(5)  # fields of Message
_COMPRESSION = 3  # of RecordBatch
_DATA, _IS_DELTA = 1, 2  # of DictionaryBatch
_FIELDS, _SCHEMA_PAIRS = 1, 2  # of Schema
_NAME, _TYPE_TYPE, _TYPE, _CHILDREN, _FIELD_PAIRS = 0, 2, 3, 5, 6  # of Field
_TYPE_TIMESTAMP = 10  # Type
_TIMEZONE = 1  # of Timestamp
_KEY, _VALUE = 0, 1  # of KeyValue

# A table takes at least this: four bytes that refer to it, and four of its own.
_TABLE_BYTES = 8


# Clients send one schema again and again: reading it is two fifths of what a small stream costs.
KEPT_SCHEMAS = 64


def check_messages(body: bytes) -> bytes:
    """Return the message with which the stream begins, its schema.

    Raises `RequestError` for what is not served: 400, or 413 for too many or too large messages;
    `struct.error` when the stream is not well-formed.
    """
    messages = _messages(body)
    first = next(messages, None)
    if first is None:
        raise struct.error("there is no schema")
    _check_first(first)
    for metadata in messages:
        _check_message(metadata, first=False)
    return body[: 8 + len(first)]


@lru_cache(KEPT_SCHEMAS)
def _check_first(metadata: bytes) -> None:
    _check_message(metadata, first=True)


def _messages(body: bytes) -> Iterator[bytes]:
    """Yield the metadata of each message up to the end of the stream."""
    at = 0
    if body.startswith(_FILE_MAGIC):
        raise struct.error("it is an Arrow file: write a stream")
    for _ in range(MAX_MESSAGES + 1):
        if at == len(body):  # Arrow takes that for the end; here it would lose what was to come
            raise struct.error("its end marker is missing: it was cut short, or never closed")
        if _unpack("<I", body, at) != _CONTINUATION:
            raise struct.error(f"no message of Arrow 1.0 or later starts at byte {at}")
        length = _unpack("<i", body, at + 4)
        if length == 0:
            return
        start, end = at + 8, at + 8 + length
        if length < 0 or end > len(body):
            raise struct.error(f"the message at byte {at} is not whole")
        if length > MAX_METADATA_BYTES:
            raise RequestError(
                413,
                "too_much_metadata",
                f"a schema or another message has {length} bytes of metadata; the limit is "
                f"{MAX_METADATA_BYTES}: send the three columns alone, without custom metadata",
            )
        metadata = body[start:end]
        yield metadata
        at = end + _body_length(metadata)
        if not end <= at <= len(body):
            raise struct.error(f"the body of the message that ends at byte {end} is not whole")
    raise RequestError(
        413,
        "too_many_record_batches",
        f"more than {MAX_MESSAGES} record batches and dictionaries in one request: "
        "put more rows into each",
    )


def _check_message(metadata: bytes, *, first: bool) -> None:
    message = _follow(metadata, 0)
    if _byte(metadata, message, _VERSION) != _VERSION_5:
        raise _unsupported("metadata older than version 5: write it with Arrow 1.0 or later")
    if next(_tables(metadata, message, _MESSAGE_PAIRS), None) is not None:
        raise _unsupported("custom metadata beside a record batch: leave it out")
    kind = _byte(metadata, message, _HEADER_TYPE)
    if first != (kind == _HEADER_SCHEMA):  # one schema: looking at a thousand would take long
        raise struct.error("a stream has one schema, and it comes first")
    records = _table(metadata, message, _HEADER)
    if first:
        _check_schema(metadata, records)
        return
    if kind not in (_HEADER_DICTIONARY, _HEADER_RECORDS):
        raise struct.error("a message is neither a dictionary nor a record batch")
    if kind == _HEADER_DICTIONARY:
        if _byte(metadata, records, _IS_DELTA):
            raise _unsupported(
                "dictionary deltas: write whole dictionaries (emit_dictionary_deltas=False)"
            )
        records = _table(metadata, records, _DATA)
    if _field(metadata, records, _COMPRESSION) is not None:
        raise _unsupported(
            "compressed buffers: write them uncompressed, compression=None in pyarrow and polars; "
            "the body as a whole may be compressed, with Content-Encoding: zstd"
        )


def _check_schema(metadata: bytes, schema: int) -> None:
    """Raise `RequestError` 400 when a schema says more than fits into its bytes but by aliases."""
    left = len(metadata)
    for size in _sizes(metadata, schema):
        left -= size
        if left < 0:
            raise _unsupported("a schema that refers to the same bytes many times")


def _sizes(metadata: bytes, schema: int) -> Iterator[int]:
    """Yield the least size of what Arrow makes a copy of, as often as it does.

    Flatbuffers refer forwards only, so there are no cycles but of offset 0, and the caller stops
    at those as at any that goes on for too long: each step down yields something.
    """
    yield from _pair_sizes(metadata, schema, _SCHEMA_PAIRS)
    waiting = [_tables(metadata, schema, _FIELDS)]
    while waiting:
        field = next(waiting[-1], None)
        if field is None:
            waiting.pop()
            continue
        yield _TABLE_BYTES + _text_length(metadata, field, _NAME)
        if _byte(metadata, field, _TYPE_TYPE) == _TYPE_TIMESTAMP:
            yield _text_length(metadata, _table(metadata, field, _TYPE), _TIMEZONE)
        yield from _pair_sizes(metadata, field, _FIELD_PAIRS)
        waiting.append(_tables(metadata, field, _CHILDREN))


def _pair_sizes(metadata: bytes, table: int, number: int) -> Iterator[int]:
    for pair in _tables(metadata, table, number):
        key, value = (_text_length(metadata, pair, part) for part in (_KEY, _VALUE))
        yield _TABLE_BYTES + key + value


def _unsupported(what: str) -> RequestError:
    return RequestError(400, "unsupported_arrow", f"the stream has {what}")


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Return where a table's field stands; None when it is absent, and so has its default."""
    vtable = table - _unpack("<i", metadata, table)
    entry = 4 + 2 * number
    if entry + 2 > _unpack("<H", metadata, vtable):
        return None
    offset = _unpack("<H", metadata, vtable + entry)
    return table + offset if offset else None


def _byte(metadata: bytes, table: int, number: int) -> int:
    """Return a field's value (or its low byte, for a small one of two), 0 when it is absent."""
    at = _field(metadata, table, number)
    return 0 if at is None else _unpack("<B", metadata, at)


def _table(metadata: bytes, table: int, number: int) -> int:
    """Return where the table that a field refers to stands."""
    at = _field(metadata, table, number)
    if at is None:
        raise struct.error("a table is missing")
    return _follow(metadata, at)


def _tables(metadata: bytes, table: int, number: int) -> Iterator[int]:
    """Yield where the tables stand that a field's vector refers to; none when it is absent."""
    at = _field(metadata, table, number)
    if at is None:
        return
    vector = _follow(metadata, at)
    for place in range(_unpack("<I", metadata, vector)):
        yield _follow(metadata, vector + 4 + 4 * place)


def _text_length(metadata: bytes, table: int, number: int) -> int:
    """Return the bytes that a field's text claims to have, 0 when it is absent."""
    at = _field(metadata, table, number)
    return 0 if at is None else _unpack("<I", metadata, _follow(metadata, at))


def _body_length(metadata: bytes) -> int:
    at = _field(metadata, _follow(metadata, 0), _BODY_LENGTH)
    return 0 if at is None else _unpack("<q", metadata, at)


def _follow(metadata: bytes, at: int) -> int:
    return at + _unpack("<I", metadata, at)


def _unpack(form: str, metadata: bytes, at: int) -> int:
    if at < 0:  # which would count from the end
        raise struct.error("an offset points before the start")
    return int(struct.unpack_from(form, metadata, at)[0])
