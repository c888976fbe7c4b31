"""Request bodies, made before anything is timed: the same events in every encoding."""

import time
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Encoding = Literal["json", "ndjson", "arrow"]

FEATURES = 3
CONTENT_TYPES: dict[Encoding, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
_SPREAD_SECONDS = 1.0  # how far the events of one body lie apart


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """n events: `user_ids` [n], `timestamps` [n] epoch seconds, `features` float32 [n, 3]."""

    user_ids: list[str]
    timestamps: NDArray[np.float64]
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Encoded requests of `events` each, and one user who is in the first of them."""

    encoding: Encoding
    events: int
    encoded: list[bytes]
    some_user: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers each request needs."""
        return {"Content-Type": CONTENT_TYPES[self.encoding]}


def make_bodies(
    encoding: Encoding, events: int, count: int, users: int = 10_000, *, uniform: bool = False
) -> Bodies:
    """Make `count` bodies of `events` each, stamped within the last second.

    Users have traffic by Zipf's law, s = 1; when `uniform`, one after the other, so that
    `count * events` events are of as many users as there are, if they suffice.
    """
    dice = np.random.default_rng([events, users])
    shape = (count, events)
    if uniform:
        chosen = dice.permutation(users)[np.arange(count * events) % users].reshape(shape)
    else:
        share = np.cumsum(1 / np.arange(1, users + 1))
        chosen = np.searchsorted(share / share[-1], dice.random(shape)).clip(max=users - 1)
    now = time.time()
    made = [
        Columns(
            [f"user-{user}" for user in row.tolist()],
            now - _SPREAD_SECONDS * dice.random(events),
            dice.standard_normal((events, FEATURES)).astype(np.float32),
        )
        for row in chosen
    ]
    return Bodies(
        encoding, events, [encode(columns, encoding) for columns in made], made[0].user_ids[0]
    )


def encode(columns: Columns, encoding: Encoding) -> bytes:
    """Return one request's body."""
    if encoding == "arrow":
        return _arrow(columns)
    events = [
        {"user_id": user_id, "timestamp": timestamp, "features": features}
        for user_id, timestamp, features in zip(
            columns.user_ids,
            columns.timestamps.round(6).tolist(),
            columns.features.astype(np.float64).round(6).tolist(),
            strict=True,
        )
    ]
    if encoding == "ndjson":
        return msgspec.json.Encoder().encode_lines(events)
    return msgspec.json.encode({"events": events})


def _arrow(columns: Columns) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - only this encoding needs it

    flat = pa.array(columns.features.reshape(-1))
    batch = pa.record_batch(
        {
            "user_id": pa.array(columns.user_ids, pa.utf8()),
            "timestamp": pa.array(columns.timestamps),
            "features": pa.FixedSizeListArray.from_arrays(flat, FEATURES),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return bytes(sink.getvalue())
