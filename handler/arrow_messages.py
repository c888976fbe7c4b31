"""What an Arrow IPC stream says of itself, looked at before Arrow acts on it. Pure.

Arrow takes a message's word for how much memory to fill: a compressed buffer names its size, and
a dictionary's delta makes a copy of all that came before. pyarrow has no switch against either, so
the few fields that tell are read here from the messages' flatbuffers, by the layout of Arrow's
Message.fbs and Schema.fbs; Arrow itself verifies the rest.
"""

import struct

import pyarrow as pa

from handler.errors import RequestError

# A record batch costs some tens of microseconds however few rows it has.
MAX_MESSAGES = 1000

_VERSION_5 = 4  # MetadataVersion.V5: Arrow 1.0 (2020) and later
_HEADER_DICTIONARY, _HEADER_RECORDS = 2, 3  # MessageHeader
_VERSION, _HEADER_TYPE, _HEADER = 0, 1, 2  # fields of Message
_COMPRESSION = 3  # of RecordBatch
_DATA, _IS_DELTA = 1, 2  # of DictionaryBatch


def check_messages(body: bytes) -> None:
    """Raise `RequestError` for what is not served: 400, or 413 for too many messages.

    Raises `pa.ArrowException`, `struct.error` or `OSError` when the stream is not well-formed.
    """
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    for _ in range(MAX_MESSAGES + 1):
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        _check_message(message.metadata.to_pybytes())
    raise RequestError(
        413,
        "too_many_record_batches",
        f"more than {MAX_MESSAGES} record batches and dictionaries in one request: "
        "put more rows into each",
    )


def _check_message(metadata: bytes) -> None:
    message = _follow(metadata, 0)
    if _byte(metadata, message, _VERSION) != _VERSION_5:
        raise _unsupported("metadata older than version 5: write it with Arrow 1.0 or later")
    kind = _byte(metadata, message, _HEADER_TYPE)
    if kind not in (_HEADER_DICTIONARY, _HEADER_RECORDS):
        return
    records = _table(metadata, message, _HEADER)
    if kind == _HEADER_DICTIONARY:
        if _byte(metadata, records, _IS_DELTA):
            raise _unsupported("dictionary deltas: write whole dictionaries")
        records = _table(metadata, records, _DATA)
    if _field(metadata, records, _COMPRESSION) is not None:
        raise _unsupported("compressed buffers: write them uncompressed")


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


def _follow(metadata: bytes, at: int) -> int:
    return at + _unpack("<I", metadata, at)


def _unpack(form: str, metadata: bytes, at: int) -> int:
    if at < 0:  # which would count from the end
        raise struct.error("an offset points before the start")
    return int(struct.unpack_from(form, metadata, at)[0])
