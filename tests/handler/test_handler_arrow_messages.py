"""What an Arrow stream says of itself does not make the handler copy it again and again."""

import io
import struct
from collections.abc import Callable

import pyarrow as pa
import pytest

from handler.arrow_messages import MAX_METADATA_BYTES
from handler.errors import RequestError
from tests.handler.arrow_support import IDS, columns_with, read, refusal, stream


def test_a_stream_with_more_metadata_than_a_schema_needs_is_refused() -> None:
    table = pa.table(columns_with())
    for size, outcome in ((MAX_METADATA_BYTES // 2, None), (MAX_METADATA_BYTES, 413)):
        sink = io.BytesIO()
        schema = table.schema.with_metadata({"pandas": "x" * size})
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table)
        if outcome is None:
            assert read(sink.getvalue()).user_ids == IDS
        else:
            assert refusal(sink.getvalue()) == (outcome, "too_much_metadata")


def test_metadata_of_a_record_batch_is_refused() -> None:
    batch = pa.record_batch(columns_with())
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={"k": "v"})
    assert refusal(sink.getvalue()) == (400, "unsupported_arrow")


class Flatbuffer:
    """A schema's flatbuffer, in which references can be bent."""

    def __init__(self, schema: pa.Schema) -> None:
        written = schema.serialize().to_pybytes()
        self.data = bytearray(written[8:])
        message = self.follow(0)
        self.schema = self.follow(self.field(message, 2))

    def body(self) -> bytes:
        head = struct.pack("<Ii", 0xFFFFFFFF, len(self.data))
        return head + bytes(self.data) + struct.pack("<Ii", 0xFFFFFFFF, 0)

    def follow(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self.data, at)[0])

    def field(self, table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", self.data, table)[0]
        return table + int(struct.unpack_from("<H", self.data, vtable + 4 + 2 * number)[0])

    def element(self, table: int, number: int) -> int:
        return self.follow(self.follow(self.field(table, number)) + 4)

    def repeat_first(self, table: int, number: int, times: int) -> int:
        """Have a vector refer to its first element many times; return where that stands.

        References point forwards, so what is repeated is a copy that stands after the vector.
        """
        original, at = bytes(self.data), self.field(table, number)
        element = self.element(table, number)
        vector = len(original)
        copy = (vector + 4 + 4 * times + 7) // 8 * 8
        struct.pack_into("<I", self.data, at, vector - at)
        places = range(vector + 4, vector + 4 + 4 * times, 4)
        self.data += struct.pack(f"<I{times}I", times, *(copy + element - at for at in places))
        self.data += bytes(copy - len(self.data)) + original
        return copy + element


def with_metadata_repeated() -> bytes:
    flatbuffer = Flatbuffer(pa.schema([("x", pa.null())], {"k": "v" * 500}))
    flatbuffer.repeat_first(flatbuffer.schema, 2, 1000)
    return flatbuffer.body()


def with_a_fields_metadata_repeated() -> bytes:
    flatbuffer = Flatbuffer(pa.schema([pa.field("x", pa.null(), metadata={"k": "v" * 500})]))
    flatbuffer.repeat_first(flatbuffer.element(flatbuffer.schema, 1), 6, 1000)
    return flatbuffer.body()


def with_a_field_repeated() -> bytes:
    flatbuffer = Flatbuffer(pa.schema([("x" * 500, pa.null())]))
    flatbuffer.repeat_first(flatbuffer.schema, 1, 1000)
    return flatbuffer.body()


def with_a_timezone_repeated() -> bytes:
    flatbuffer = Flatbuffer(pa.schema([("", pa.timestamp("s", "x" * 9000))]))
    flatbuffer.repeat_first(flatbuffer.schema, 1, 1000)
    return flatbuffer.body()


def with_a_field_and_its_child_repeated() -> bytes:
    flatbuffer = Flatbuffer(pa.schema([("", pa.struct([("", pa.null())]))]))
    outer = flatbuffer.repeat_first(flatbuffer.schema, 1, 60)
    flatbuffer.repeat_first(outer, 5, 60)
    return flatbuffer.body()


@pytest.mark.parametrize(
    "build",
    [
        with_metadata_repeated,
        with_a_fields_metadata_repeated,
        with_a_field_repeated,
        with_a_timezone_repeated,
        with_a_field_and_its_child_repeated,
    ],
)
def test_a_schema_that_names_the_same_bytes_many_times_is_refused(
    build: Callable[[], bytes],
) -> None:
    body = build()
    assert len(body) < MAX_METADATA_BYTES
    pa.ipc.open_stream(body)  # to Arrow all is well
    assert refusal(body) == (400, "unsupported_arrow")


def test_a_schema_that_goes_round_in_circles_is_refused() -> None:
    flatbuffer = Flatbuffer(pa.schema([("x", pa.struct([("y", pa.null())]))]))
    at = flatbuffer.follow(flatbuffer.field(flatbuffer.schema, 1)) + 4
    field = flatbuffer.follow(at)
    children = flatbuffer.follow(flatbuffer.field(field, 5)) + 4
    struct.pack_into("<I", flatbuffer.data, children, (field - children) % 2**32)
    assert refusal(flatbuffer.body())[0] == 400


def test_a_wide_and_deep_schema_is_read() -> None:
    deep = pa.array([1, 2, 3])
    for _ in range(20):
        deep = pa.StructArray.from_arrays([deep], ["of"])
    times = pa.array([0] * 3, pa.timestamp("ms", "Europe/Berlin"))
    wide = {f"column {number}": times for number in range(200)}
    assert read(stream(columns_with(deep=deep, **wide))).user_ids == IDS


def test_a_second_schema_is_no_stream() -> None:
    body = stream(columns_with())
    schema = pa.table(columns_with()).schema.serialize().to_pybytes()
    assert body.startswith(schema)
    assert refusal(schema + body) == (400, "not_arrow")


def test_a_stream_that_ends_between_two_messages_is_not_whole() -> None:
    whole = stream(columns_with(), max_chunksize=1)
    assert len(read(whole).user_ids) == 3
    with pytest.raises(RequestError, match="end marker is missing"):
        read(whole[:-8])


def test_an_arrow_file_is_told_from_a_stream() -> None:
    with pytest.raises(RequestError, match="it is an Arrow file: write a stream"):
        read(b"ARROW1\0\0" + stream(columns_with()))
