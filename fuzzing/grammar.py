"""Bodies by grammar, with something odd in some of their fields. Pure.

Text is written token by token, so that a body can hold what no encoder would write: a number of 400
digits, half a surrogate pair, a key twice.
"""

import io
from functools import cache
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa

from fuzzing.targets import Target
from fuzzing.tokens import NUMBERS, TEXTS, VALUES

_ARROW_STREAMS = 96  # made once: writing one takes as long as reading many
_USERS = 40


class Grammar:
    """Draws bodies from a random stream; each field is odd with probability `oddity`.

    Timestamps are around `now`, epoch seconds.
    """

    def __init__(self, random: Random, oddity: float, now: float) -> None:
        self._random = random
        self._oddity = oddity
        self._now = now

    def body(self, target: Target) -> bytes:
        """Draw a body for a target; for `Target.QUERY`, the query string."""
        return {
            Target.JSON: self._json,
            Target.NDJSON: self._ndjson,
            Target.ARROW: self._arrow,
            Target.SCORES: self._scores,
            Target.PACKED: self._packed,
            Target.MEDIANS: self._medians,
            Target.QUERY: self._query,
        }[target]()

    def _odd(self) -> bool:
        return self._random.random() < self._oddity

    # --- JSON ---------------------------------------------------------------------------------

    def _json(self) -> bytes:
        events = self._events()
        array = "[" + ",".join(events) + "]"
        document = self._object({"events": array})
        several = self._random.choice(("", "\n", "\r\n \t")).join(events)
        forms = (array, events[0], document, document, several, self._events_twice())
        return self._encoded(self._random.choice(forms))

    def _ndjson(self) -> bytes:
        end = self._random.choice(("\n", "\n", "\r\n", "\n\n", "\r"))
        lines = [self._line() for _ in range(self._random.choice((1, 1, 2, 3)))]
        return end.join(lines).encode("utf-8", "surrogatepass")

    def _line(self) -> str:
        """Write an event, mostly; or all else that a line may hold."""
        events = self._events()
        array = "[" + ",".join(events) + "]"
        several = self._object({"events": array})
        plain = (events[0],) * 6
        twice = self._events_twice()
        return self._random.choice((*plain, array, several, "".join(events), twice))

    def _events_twice(self) -> str:
        members = [f'"events":[{self._event()}]' for _ in range(2)]
        return "{" + self._random.choice((",", ",\n")).join(members) + "}"

    def _arrow(self) -> bytes:
        return self._random.choice(arrow_streams())

    def _encoded(self, text: str) -> bytes:
        if self._odd() and self._odd():
            encoding = self._random.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32"))
            return text.encode(encoding, "replace")
        return text.encode("utf-8", "surrogatepass")

    def _events(self) -> list[str]:
        return [self._event() for _ in range(self._random.choice((1, 1, 1, 2, 3, 6)))]

    def _event(self) -> str:
        if self._odd() and self._odd():
            return self._random.choice(VALUES)
        count = 3 if not self._odd() else self._random.randrange(8)
        features = [self._number(f"{self._random.gauss(0, 1):.4g}") for _ in range(count)]
        return self._object(
            {
                "user_id": self._user_id(),
                "timestamp": self._number(f"{self._now - self._random.random() * 30:.3f}"),
                "features": self._value("[" + ",".join(features) + "]"),
            }
        )

    def _object(self, fields: dict[str, str]) -> str:
        """Write an object; perhaps without a field, with one twice, or with one too many."""
        items = list(fields.items())
        if self._odd():
            way = self._random.randrange(4)
            at = self._random.randrange(len(items))
            if way == 0:
                del items[at]
            elif way == 1:
                items.append((items[at][0], self._value(items[at][1])))
            elif way == 2:
                items.insert(at, (self._random.choice(TEXTS), self._random.choice(VALUES)))
            else:
                self._random.shuffle(items)
        return "{" + ",".join(f'"{name}":{value}' for name, value in items) + "}"

    def _number(self, good: str) -> str:
        if not self._odd():
            return good
        return self._random.choice(NUMBERS if self._random.random() < 0.7 else VALUES)

    def _value(self, good: str) -> str:
        if not self._odd():
            return good
        if self._random.random() < 0.5:
            return self._random.choice(VALUES)
        return self._random.choice((self._random.choice(NUMBERS), self._text()))

    def _text(self) -> str:
        return '"' + self._random.choice(TEXTS) + '"'

    def _user_id(self) -> str:
        if not self._odd():
            return f'"hostile-{self._random.randrange(_USERS)}"'
        return self._text() if self._random.random() < 0.7 else self._value("7")

    # --- the state service --------------------------------------------------------------------

    def _scores(self) -> bytes:
        batches = [self._batch() for _ in range(self._random.choice((0, 1, 1, 2, 4)))]
        fields = {"batches": self._value("[" + ",".join(batches) + "]")}
        if self._odd():
            fields["stages"] = self._value('{"decode":[' + self._number("0.01") + "]}")
        if self._odd():
            counts = [f'"{name}":{self._number("1")}' for name in _SPOOL_COUNTS]
            fields["spool"] = self._value('{"host":' + self._text() + "," + ",".join(counts) + "}")
        return self._encoded(self._object(fields))

    def _batch(self) -> str:
        count = self._random.choice((0, 1, 2, 5))
        columns = {
            "user_id": [self._user_id() for _ in range(count)],
            "timestamp": [self._number(f"{self._now - n}") for n in range(count)],
            "score": [self._number(f"{self._random.random():.3f}") for _ in range(count)],
        }
        if self._odd():
            columns[self._random.choice(list(columns))].append("1")
        fields = {name: self._value("[" + ",".join(them) + "]") for name, them in columns.items()}
        key = f'"{self._random.getrandbits(64):x}"'
        fields["key"] = key if not self._odd() else self._text()
        for name in ("skipped", "received_at", "request_id", "traceparent"):
            if self._odd():
                fields[name] = self._value(self._number("1"))
        return self._object(fields)

    def _packed(self) -> bytes:
        counts = [self._random.choice((0, 1, 3)) for _ in range(self._random.choice((0, 1, 2)))]
        total = sum(counts) + (self._random.choice((-1, 1)) if self._odd() else 0)
        body: dict[str, Any] = {
            "batches": [
                {"key": f"{self._random.getrandbits(64):x}", "events": count} for count in counts
            ],
            "user_id": [f"hostile-{n}" for n in range(total)],
            "timestamp": self._column(total, self._now),
            "score": self._column(total, 0.5),
        }
        if self._odd():
            body["stages"] = {"decode": [self._random.choice((0.1, np.nan, np.inf, -1.0, "1"))]}
        if self._odd():
            claims = {name: self._random.choice((0, 1, 2**53)) for name in _SPOOL_COUNTS}
            body["spool"] = {"host": "h", **claims}
        if self._odd():
            body[self._random.choice(list(body))] = self._random.choice(_PACKED_VALUES)
        for batch in body["batches"] if isinstance(body["batches"], list) else ():
            if self._odd() and isinstance(batch, dict):
                name = self._random.choice(("key", "events", "skipped", "received_at", "else"))
                batch[name] = self._random.choice(_PACKED_VALUES)
        return msgspec.msgpack.encode(body)

    def _column(self, count: int, good: float) -> bytes:
        column = np.full(max(count, 0), good, "<f8")
        if count > 0 and self._odd():
            column[self._random.randrange(count)] = self._random.choice(
                (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0)
            )
        return column.tobytes()[: -1 if self._odd() and self._odd() else None]

    def _medians(self) -> bytes:
        user_ids = [self._user_id() for _ in range(self._random.choice((0, 1, 2, 9)))]
        fields = {"user_ids": self._value("[" + ",".join(user_ids) + "]")}
        for name, good in (("window", "5"), ("at", f"{self._now}")):
            if self._odd():
                fields[name] = self._value(self._number(good))
        return self._encoded(self._object(fields))

    def _query(self) -> bytes:
        names = [
            name for name in ("window", "at", "q", "window", "x") if self._random.random() < 0.4
        ]
        parts = []
        for name in names:
            good = {"window": "5", "at": f"{self._now}", "q": "0.5,0.9"}.get(name, "1")
            value = self._value(self._number(good))
            if self._odd():
                name = self._random.choice(TEXTS)  # noqa: PLW2901 - another name for it
            separator = self._random.choice("&&&;")
            parts.append(f"{_quoted(name)}={_quoted(value)}{separator}")
        return "".join(parts).encode("ascii", "replace")


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="-+_.,~%")


_SPOOL_COUNTS = (
    "batches", "bytes", "oldest_seconds", "refused", "spooled_events", "replayed_events",
    "expired_events",
)  # fmt: skip
_PACKED_VALUES: tuple[Any, ...] = (
    None, True, -1, 2**31, 2**63, 2**64 - 1, 1.5, np.nan, np.inf, "", "x", "u" * 300, "\x00",
    "é" * 129,     b"", b"\xff" * 9, [], [None], [[]], {}, {"": None}, {1: 2},
    msgspec.msgpack.Ext(-1, b"\xff" * 4),
    msgspec.msgpack.Ext(5, b""), msgspec.Raw(b"\xc1"), msgspec.Raw(b"\xdd\x7f\xff\xff\xff"),
    msgspec.Raw(b"\xa3\xed\xa0\x80"), msgspec.Raw(b"\x91" * 1500 + b"\x90"),
)  # fmt: skip


# --- Arrow ------------------------------------------------------------------------------------


@cache
def arrow_streams() -> tuple[bytes, ...]:
    """Return streams of every type that is read, and of some that are not; the same ones always."""
    random = Random(7)  # noqa: S311 - no secret
    streams: list[bytes] = []
    while len(streams) < _ARROW_STREAMS:
        columns = {
            "user_id": random.choice(_user_columns()),
            "timestamp": random.choice(_TIMESTAMPS),
            "features": random.choice(_FEATURES),
        }
        names = list(columns)
        if random.random() < 0.2:
            random.shuffle(names)
        if random.random() < 0.1:
            names.remove(random.choice(names))
        if not names:
            continue
        arrays = [columns[name] for name in names]
        if random.random() < 0.1:
            arrays.append(pa.array([{"any": [1]}, None, {"any": None}]))
            names.append("else")
        table = pa.table(arrays, names)
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(
            compression=random.choice((None, None, None, None, None, "lz4", "zstd")),
            emit_dictionary_deltas=random.random() < 0.1,
        )
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=random.choice((None, 1, 2)))
        streams.append(sink.getvalue())
    return tuple(streams)


def _user_columns() -> tuple[pa.Array, ...]:
    ids = ["hostile-1", "hostile-2", "hostile-1"]
    return (
        pa.array(ids),
        pa.array(ids, pa.large_string()),
        pa.array(ids, pa.string_view()),
        pa.array(["hostile-long-" + "u" * 40, None, "é" * 129], pa.string_view()),
        pa.array(ids).dictionary_encode(),
        pa.array([1, None, 2**63], pa.uint64()),
        pa.array(["", None, "a\nb\x00\x1b"]),
        pa.array([b"\xff", b"", b"x"], pa.binary()),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), pa.array([None, "ann"])),
    )


_TIMESTAMPS = (
    pa.array([1.795e9, 1.795e9, 1.795e9]),
    pa.array([1.5, None, np.nan]),
    pa.array([1e308, -np.inf, np.inf]),
    pa.array([1_795_000_000, 0, -(2**63)], pa.int64()),
    pa.array([1_795_000_000_000, 0, None], pa.timestamp("ms")),
    pa.array([2**62, -(2**62), None], pa.timestamp("ns", "UTC")),
    pa.array([0.5, 1.0, 1.5], pa.float16()),
    pa.array(["1", "2", "3"]),
)
_ROWS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
_FEATURES = (
    pa.array(_ROWS, pa.list_(pa.float32(), 3)),
    pa.array(_ROWS, pa.list_(pa.float64(), 3)),
    pa.array(_ROWS, pa.list_(pa.float32())),
    pa.array(_ROWS, pa.large_list(pa.int16())),
    pa.array([[1.0, None, 3.0], None, []], pa.list_(pa.float64())),
    pa.array([[1e300, np.nan, -np.inf], None, [1, 2, 3]], pa.list_(pa.float64(), 3)),
    pa.array([[1.0] * 9, [1.0], [1.0] * 3]),
    pa.array([[], [], []], pa.list_(pa.float32(), 0)),
    pa.array([1.0, 2.0, 3.0]),
)
