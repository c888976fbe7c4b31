"""One request's events as columns -> a body, in the format that the run asks for.

pyarrow is imported when Arrow is asked for, and not otherwise.
"""

import io
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

Format = Literal["json", "ndjson", "arrow"]
Floats = npt.NDArray[np.float64]

# (user ids, timestamps (batch,), features (batch, features)) -> body
Encode = Callable[[Sequence[str], Floats, Floats], bytes]

FORMATS: tuple[Format, ...] = get_args(Format)
CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}


class Event(msgspec.Struct, gc=False):
    """One event as the scorer takes it; `timestamp` in UNIX epoch seconds."""

    user_id: str
    timestamp: float
    features: list[float]


class _Body(msgspec.Struct, gc=False):
    events: list[Event]


def encoder(form: Format) -> Encode:
    """Return what encodes requests. Raises `ModuleNotFoundError` for Arrow without pyarrow."""
    if form == "arrow":
        return _arrow_encoder()
    encode = msgspec.json.Encoder()
    if form == "ndjson":
        return lambda *columns: encode.encode_lines(_events(*columns))
    return lambda *columns: encode.encode(_Body(_events(*columns)))


def _events(user_ids: Sequence[str], timestamps: Floats, features: Floats) -> list[Event]:
    rows = zip(user_ids, timestamps.tolist(), features.tolist(), strict=True)
    return [Event(*row) for row in rows]


def _arrow_encoder() -> Encode:
    import pyarrow as pa  # noqa: PLC0415 - 170 MB that other formats do without

    def encode(user_ids: Sequence[str], timestamps: Floats, features: Floats) -> bytes:
        flat = pa.array(features.astype(np.float32).ravel())
        batch = pa.record_batch(
            {
                "user_id": pa.array(user_ids, pa.string()).dictionary_encode(),
                "timestamp": pa.array(timestamps),
                "features": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
            }
        )
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue()

    return encode
