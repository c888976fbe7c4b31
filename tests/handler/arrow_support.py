"""Arrow streams for tests, and what the handler makes of them."""

import io
from typing import Any

import pyarrow as pa
import pytest

from handler.decoding import ARROW, decode
from handler.errors import RequestError
from handler.events import EventColumns, EventShape

SHAPE = EventShape(features=3, max_events=50, max_user_id_bytes=16)
FLOAT32_3 = pa.list_(pa.float32(), 3)
IDS = ["ann", "bob", "ann"]
TIMES = [1.5, 2.5, 3.5]
ROWS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def stream(columns: dict[str, Any], **options: Any) -> bytes:
    table = pa.table(columns)
    size = options.pop("max_chunksize", None)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=size)
    return sink.getvalue()


def columns_with(**changes: Any) -> dict[str, Any]:
    columns = {"user_id": IDS, "timestamp": TIMES, "features": pa.array(ROWS, FLOAT32_3)}
    return {**columns, **changes}


def read(body: bytes, shape: EventShape = SHAPE) -> EventColumns:
    return decode(body, ARROW, shape)


def refusal(body: bytes, shape: EventShape = SHAPE) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        read(body, shape)
    return caught.value.status, caught.value.code
