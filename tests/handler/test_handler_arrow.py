"""Arrow streams give the columns that JSON gives, and no bytes do worse than be refused."""

import io
import json
import math
import random
import re
import struct
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.arrow_messages import MAX_MESSAGES
from handler.decoding import JSON, NDJSON, decode
from handler.errors import RequestError
from handler.events import EventShape
from tests.handler.arrow_support import (
    FLOAT32_3,
    IDS,
    ROWS,
    SHAPE,
    TIMES,
    columns_with,
    read,
    refusal,
    stream,
)


@pytest.mark.parametrize(
    "user_id",
    [
        pa.array(IDS, pa.string()),
        pa.array(IDS, pa.large_string()),
        pa.array(IDS, pa.string_view()),
        pa.array(IDS).dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            pa.array([1, 0, 1], pa.uint8()),
            pa.array(["bob", "ann", None, "", "of no use to anyone"], pa.string_view()),
        ),
    ],
)
@pytest.mark.parametrize(
    "timestamp",
    [
        pa.array(TIMES, pa.float64()),
        pa.array(TIMES, pa.float32()),
        pa.array([1500, 2500, 3500], pa.timestamp("ms")),
        pa.array([1_500_000_000, 2_500_000_000, 3_500_000_000], pa.timestamp("ns", "UTC")),
    ],
)
@pytest.mark.parametrize(
    "features",
    [
        pa.array(ROWS, FLOAT32_3),
        pa.array(ROWS, pa.list_(pa.float64(), 3)),
        pa.array(ROWS, pa.list_(pa.float32())),
        pa.array(ROWS, pa.large_list(pa.int16())),
    ],
)
@pytest.mark.parametrize("rows_a_batch", [None, 1, 2])
def test_each_documented_type_is_read(
    user_id: pa.Array, timestamp: pa.Array, features: pa.Array, rows_a_batch: int | None
) -> None:
    other = pa.array([{"any": [1]}, None, {"any": None}])
    body = stream(
        {"other": other, "features": features, "user_id": user_id, "timestamp": timestamp},
        max_chunksize=rows_a_batch,
    )
    columns = read(body)
    assert (columns.total, columns.errors) == (3, [])
    assert columns.positions.tolist() == [0, 1, 2]
    assert columns.user_ids == IDS
    assert columns.timestamps.tolist() == TIMES
    assert columns.features.tolist() == ROWS


@pytest.mark.parametrize(
    "user_id",
    [
        pa.array([7, 0, None], pa.int8()),
        pa.array([7, 0, None], pa.uint64()),
        pa.array([7, 0, None]).dictionary_encode(),
    ],
)
def test_an_integer_user_id_is_its_decimal_string(user_id: pa.Array) -> None:
    columns = read(stream(columns_with(user_id=user_id)))
    assert columns.user_ids == ["7", "0"]
    assert columns.errors[0].code == "missing"


def test_nanoseconds_since_1970_become_the_nearest_float64() -> None:
    ticks = 1_795_000_000_123_456_789
    times = pa.array([ticks, -1_500_000_000, 0], pa.timestamp("ns"))
    assert read(stream(columns_with(timestamp=times))).timestamps.tolist() == [
        1_795_000_000.123456789, -1.5, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"user_id": ["ann", None, "ann"]}, "user_id", "missing"),
        ({"user_id": ["ann", "", "ann"]}, "user_id", "empty"),
        ({"user_id": ["ann", "é" * 9, "ann"]}, "user_id", "too_long"),
        (
            {"user_id": pa.array(["ann", "u" * 17, "ann"], pa.string_view())},
            "user_id",
            "too_long",
        ),
        ({"user_id": pa.array(["ann", None, "ann"]).dictionary_encode()}, "user_id", "missing"),
        ({"user_id": pa.array(["ann", "", "ann"]).dictionary_encode()}, "user_id", "empty"),
        (
            {"user_id": pa.DictionaryArray.from_arrays([1, 0, 1], pa.array([None, "ann"]))},
            "user_id",
            "missing",
        ),
        ({"timestamp": [1.5, None, 3.5]}, "timestamp", "missing"),
        ({"timestamp": [1.5, math.nan, 3.5]}, "timestamp", "out_of_range"),
        ({"timestamp": [1.5, -math.inf, 3.5]}, "timestamp", "out_of_range"),
        ({"features": pa.array([ROWS[0], None, ROWS[2]], FLOAT32_3)}, "features", "missing"),
        (
            {"features": pa.array([ROWS[0], [1, None, 3], ROWS[2]], FLOAT32_3)},
            "features",
            "wrong_type",
        ),
        (
            {"features": pa.array([ROWS[0], [1, 2, math.nan], ROWS[2]], FLOAT32_3)},
            "features",
            "out_of_range",
        ),
        (
            {"features": pa.array([ROWS[0], [1, 2, 1e300], ROWS[2]], pa.list_(pa.float64(), 3))},
            "features",
            "out_of_range",
        ),
        ({"features": [ROWS[0], [1.0], ROWS[2]]}, "features", "wrong_length"),
        ({"features": [ROWS[0], [], ROWS[2]]}, "features", "wrong_length"),
        ({"features": [ROWS[0], None, ROWS[2]]}, "features", "missing"),
        ({"features": [ROWS[0], [1, None, 3], ROWS[2]]}, "features", "wrong_type"),
    ],
)
@pytest.mark.parametrize("rows_a_batch", [None, 1])
def test_a_malformed_event_is_named_as_in_json_and_its_neighbours_kept(
    changes: dict[str, Any], field: str, code: str, rows_a_batch: int | None
) -> None:
    columns = read(stream(columns_with(**changes), max_chunksize=rows_a_batch))
    assert (columns.total, columns.user_ids) == (3, ["ann", "ann"])
    assert columns.timestamps.tolist() == [1.5, 3.5]
    assert columns.features.tolist() == [ROWS[0], ROWS[2]]
    assert columns.positions.tolist() == [0, 2]
    (error,) = columns.errors
    assert (error.index, error.field, error.code) == (1, field, code)
    assert error.detail


def test_rows_of_another_fixed_length_are_each_named() -> None:
    for size in (0, 2, 4):
        features = pa.array([[1] * size] * 3, pa.list_(pa.float32(), size))
        columns = read(stream(columns_with(features=features)))
        assert [error.detail for error in columns.errors] == [f"expected 3 numbers, got {size}"] * 3
        assert columns.features.shape == (0, 3)


def test_a_stream_without_rows_has_no_events() -> None:
    empty = pa.table(columns_with()).slice(0, 0)
    columns = read(stream({name: empty[name] for name in empty.column_names}))
    assert columns.total == 0
    assert columns.features.shape == (0, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": [1.5, 2.5, 3.5]},
        {"user_id": [b"ann", b"bob", b"ann"]},
        {"user_id": [None] * 3},
        {"user_id": [["ann"]] * 3},
        {"user_id": [True] * 3},
        {"timestamp": ["1", "2", "3"]},
        {"timestamp": pa.array([1, 2, 3], pa.date32())},
        {"features": [1.0, 2.0, 3.0]},
        {"features": [["1"] * 3] * 3},
        {"features": [[[1.0]] * 3] * 3},
    ],
)
def test_a_column_of_another_type_is_a_bad_request(changes: dict[str, Any]) -> None:
    assert refusal(stream(columns_with(**changes))) == (400, "wrong_schema")


@pytest.mark.parametrize(
    "changes",
    [
        {"features": [[Decimal("0.5"), Decimal("1.5"), Decimal("2.5")]] * 3},  # DuckDB's [0.5, …]
        {"timestamp": [Decimal("1795000000.25")] * 3},
        {"timestamp": [date(2026, 11, 28)] * 3},
        {"timestamp": ["2026-11-28T12:00:00Z"] * 3},
        {"user_id": [7.0, 8.0, 7.0]},
        {"user_id": [b"ann"] * 3},
    ],
)
def test_a_column_of_another_type_is_taken_after_the_cast_that_its_error_names(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(RequestError) as caught:
        read(stream(columns_with(**changes)))
    cast = re.search(r"column\.cast\((.*)\)$", caught.value.detail)
    assert cast is not None
    ((field, column),) = changes.items()
    wanted = eval(cast[1], {"pyarrow": pa})  # noqa: S307 - our own words
    columns = read(stream(columns_with(**{field: pa.array(column).cast(wanted)})))
    assert (columns.total, columns.errors) == (3, [])


def test_the_feature_that_is_null_or_does_not_fit_is_named() -> None:
    rows = [[1, 2, None], [1, math.nan, 3], [1e300, 1, 2]]
    columns = read(stream(columns_with(features=pa.array(rows, pa.list_(pa.float64())))))
    details = [error.detail for error in columns.errors]
    assert "features[2] is null" in details[0]
    assert "features[1] is NaN" in details[1]
    assert "features[0] is infinite, or does not fit float32" in details[2]


@pytest.mark.parametrize("field", ["user_id", "timestamp", "features"])
def test_a_column_that_is_missing_or_there_twice_is_a_bad_request(field: str) -> None:
    table = pa.table(columns_with())
    for changed in (table.drop_columns([field]), table.append_column(field, table[field])):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, changed.schema) as writer:
            writer.write_table(changed)
        assert refusal(sink.getvalue()) == (400, "wrong_schema")


def test_what_takes_more_memory_than_was_sent_is_refused() -> None:
    large = pa.array(["a" * 10] * 3)
    for codec in ("lz4", "zstd"):
        body = stream(columns_with(other=large), compression=codec)
        assert refusal(body) == (400, "unsupported_arrow")
    old = stream(columns_with(), metadata_version=pa.ipc.MetadataVersion.V4)
    assert refusal(old) == (400, "unsupported_arrow")
    chunks = [pa.array(ids).dictionary_encode() for ids in (["a"], ["a", "b"])]
    table = pa.table({"user_id": pa.chunked_array(chunks)})
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    assert refusal(sink.getvalue()) == (400, "unsupported_arrow")


def test_a_dictionary_that_is_replaced_on_the_way_is_read() -> None:
    chunks = [pa.array(ids).dictionary_encode() for ids in (["a"], ["c", "b"])]
    body = stream(columns_with(user_id=pa.chunked_array(chunks)))
    assert read(body).user_ids == ["a", "c", "b"]


def test_one_long_string_named_by_every_row_is_never_copied_out() -> None:
    shape = EventShape(features=3, max_events=50_000, max_user_id_bytes=256)
    rows = 50_000
    entry = pa.array(["x" * 1_000_000, "ann"])
    indices = pa.array([0] * (rows - 1) + [1], pa.int32())
    features = pa.array([[1, 2, 3]] * rows, FLOAT32_3)
    user_ids = pa.DictionaryArray.from_arrays(indices, entry)
    body = stream({"user_id": user_ids, "timestamp": [1.0] * rows, "features": features})
    columns = read(body, shape)
    assert columns.user_ids == ["ann"]
    assert {error.code for error in columns.errors} == {"too_long"}


@pytest.mark.parametrize(
    "body",
    [
        b"no Arrow at all",
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"ARROW1\x00\x00",
        stream(columns_with())[:-100],
        stream(columns_with()) + b"more",
        stream(columns_with()).replace(b"annbobann", b"ann\xff\xfeban"),
        stream(columns_with(user_id=pa.array(IDS).dictionary_encode())).replace(
            b"annbob", b"\xffnnbob"
        ),
    ],
)
def test_what_is_no_whole_valid_stream_is_a_bad_request(body: bytes) -> None:
    assert refusal(body) == (400, "not_arrow")


def test_too_many_rows_and_too_many_record_batches_are_refused() -> None:
    rows = {"user_id": ["a"] * 51, "timestamp": [1.0] * 51, "features": [[1.0, 2.0, 3.0]] * 51}
    assert refusal(stream(rows)) == (413, "too_many_events")
    assert refusal(stream(rows, max_chunksize=1)) == (413, "too_many_events")
    table = pa.table(columns_with())
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for _ in range(MAX_MESSAGES):
            writer.write_table(table.slice(0, 1))
    assert refusal(sink.getvalue()) == (413, "too_many_record_batches")


def test_a_dictionary_is_not_looked_at_anew_for_very_many_record_batches() -> None:
    names = pa.array(["of no use"] * 100_000 + ["ann"])
    user_ids = pa.DictionaryArray.from_arrays(pa.array([100_000] * 50, pa.int32()), names)
    columns = {"user_id": user_ids, "timestamp": [1.0] * 50, "features": [[1.0, 2.0, 3.0]] * 50}
    assert read(stream(columns)).user_ids == ["ann"] * 50
    assert read(stream(columns, max_chunksize=2)).user_ids == ["ann"] * 50
    assert refusal(stream(columns, max_chunksize=1)) == (413, "too_many_record_batches")


@pytest.mark.parametrize("in_a_dictionary", [False, True])
def test_one_long_string_that_many_views_name_is_not_checked_for_each(
    in_a_dictionary: bool,
) -> None:
    text = b"a" * 2_000_000
    views = struct.pack("<i4sii", len(text), text[:4], 0, 0) * 40
    buffers = [None, pa.py_buffer(views), pa.py_buffer(text)]
    user_ids: pa.Array = pa.Array.from_buffers(pa.string_view(), 40, buffers)
    if in_a_dictionary:
        user_ids = pa.DictionaryArray.from_arrays(pa.array(range(40), pa.int32()), user_ids)
    body = stream(
        {"user_id": user_ids, "timestamp": [1.0] * 40, "features": [[1.0, 2.0, 3.0]] * 40}
    )
    assert refusal(body) == (413, "too_many_record_batches")


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.text(st.characters(codec="utf-8"), max_size=18),
            "timestamp": NUMBERS,
            "features": st.lists(NUMBERS, min_size=2, max_size=4) | st.lists(NUMBERS, max_size=0),
        }
    ),
    max_size=8,
)


@given(
    EVENTS,
    st.sampled_from([pa.string(), pa.string_view(), pa.dictionary(pa.int16(), pa.large_string())]),
    st.sampled_from([None, 1, 3]),
)
def test_arrow_ndjson_and_json_of_the_same_events_give_the_same_columns(
    events: list[dict[str, Any]], id_type: pa.DataType, rows_a_batch: int | None
) -> None:
    from_json = decode(json.dumps(events).encode(), JSON, SHAPE)
    from_lines = decode("\n".join(map(json.dumps, events)).encode(), NDJSON, SHAPE)
    body = stream(
        {
            "user_id": pa.array([event["user_id"] for event in events], id_type),
            "timestamp": pa.array([event["timestamp"] for event in events], pa.float64()),
            "features": pa.array([event["features"] for event in events], pa.list_(pa.float64())),
        },
        max_chunksize=rows_a_batch,
    )
    for columns in (from_lines, read(body)):
        assert columns.total == from_json.total
        assert columns.user_ids == from_json.user_ids
        assert columns.positions.tolist() == from_json.positions.tolist()
        assert columns.timestamps.tobytes() == from_json.timestamps.tobytes()
        assert columns.features.tobytes() == from_json.features.tobytes()
        assert [(error.index, error.field, error.code) for error in columns.errors] == [
            (error.index, error.field, error.code) for error in from_json.errors
        ]


VALID = [
    stream(columns_with(), max_chunksize=2),
    stream(columns_with(user_id=pa.array(["a", None, "long enough"], pa.string_view()))),
    stream(columns_with(user_id=pa.array(IDS).dictionary_encode(), features=ROWS)),
]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(VALID))
def test_a_damaged_stream_is_read_or_refused_and_never_worse(seed: int, valid: bytes) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        damaged = bytearray(valid)
        for _ in range(chance.choice([0, 1, 1, 2, 5])):
            place = chance.randrange(len(damaged))
            if chance.random() < 0.5:
                damaged[place] ^= 1 << chance.randrange(8)
            else:
                number = chance.choice([-1, 0, 2**31 - 1, 2**30, -(2**31)])
                damaged[place & ~3 : (place & ~3) + 4] = number.to_bytes(4, "little", signed=True)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            columns = read(bytes(damaged))
        except RequestError as error:
            assert error.status in (400, 413)
            continue
        assert len(columns.user_ids) == len(columns.timestamps) == len(columns.features)
        assert len(columns.user_ids) + len(columns.errors) == columns.total
        assert all(0 < len(user_id.encode()) <= 16 for user_id in columns.user_ids)
