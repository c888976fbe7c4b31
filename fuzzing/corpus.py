"""Hostile bodies by name: what somebody would try by hand. Pure; the large ones are made late."""

import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from random import Random

import msgspec
import numpy as np
import pyarrow as pa

from fuzzing.grammar import Grammar, arrow_streams
from fuzzing.packing import PACKERS
from fuzzing.targets import Target
from fuzzing.tokens import FORGED, NUMBERS, TEXTS, VALUES

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """A body with a name. `headers` are names and values of further request headers."""

    name: str
    target: Target
    make: Callable[[], bytes]
    headers: tuple[tuple[str, str], ...] = ()


def cases(now: float) -> Iterator[Case]:
    """Yield every case; good parts are stamped around `now`, epoch seconds."""
    yield from _in_fields(now)
    yield from _whole_documents()
    yield from _large()
    yield from _arrow()
    yield from _packed(now)
    yield from _encoded()
    yield from _sent_otherwise(now)
    yield from _cut_short(now)


def _event(now: float, **fields: str) -> str:
    good = {"user_id": '"hostile"', "timestamp": f"{now:.3f}", "features": "[1,2,3]"}
    return "{" + ",".join(f'"{name}":{value}' for name, value in (good | fields).items()) + "}"


def _fixed(name: str, target: Target, text: str | bytes) -> Case:
    body = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return Case(name, target, lambda: body)


def _in_fields(now: float) -> Iterator[Case]:
    """Put each token into each field of an event between two good ones, of a batch, a question."""
    good = _event(now)
    texts = [(f"text {n}, {text!r:.40}", f'"{text}"') for n, text in enumerate(TEXTS)]
    numbers = [(f"number {n}, {number:.40}", number) for n, number in enumerate(NUMBERS)]
    values = [(f"value {n}, {value!r:.40}", value) for n, value in enumerate(VALUES)]
    for name, token in texts + numbers + values:
        for field in ("user_id", "timestamp", "features", "else"):
            event = _event(now, **{field: token})
            yield _fixed(f"{field}: {name}", Target.JSON, f"[{good},{event},{good}]")
            yield _fixed(f"{field}: {name}", Target.NDJSON, f"{good}\n{event}\n{good}")
        row = _event(now, features=f"[1,{token},3]")
        yield _fixed(f"a feature: {name}", Target.JSON, f'{{"events":[{row}]}}')
        columns = f'"user_id":["u"],"timestamp":[{now}],"score":[{token}]'
        yield _fixed(f"score: {name}", Target.SCORES, f'{{"batches":[{{"key":"k",{columns}}}]}}')
        yield _fixed(
            f"key: {name}",
            Target.SCORES,
            f'{{"batches":[{{"key":{token},"user_id":[],"timestamp":[],"score":[]}}]}}',
        )
        yield _fixed(f"user: {name}", Target.MEDIANS, f'{{"user_ids":[{token}]}}')
        yield _fixed(f"window: {name}", Target.MEDIANS, f'{{"user_ids":["u"],"window":{token}}}')
        yield _fixed(f"at: {name}", Target.MEDIANS, f'{{"user_ids":["u"],"at":{token}}}')


_JSON_TARGETS = (Target.JSON, Target.NDJSON, Target.SCORES, Target.MEDIANS)


def _whole_documents() -> Iterator[Case]:
    documents: dict[str, str | bytes] = {
        "nothing": b"",
        "blanks": b" \t\r\n" * 100,
        "a byte order mark": b'\xef\xbb\xbf{"events":[]}',
        "UTF-16": '{"events":[]}'.encode("utf-16"),
        "UTF-7": b'+AHs-"events":[]}',
        "a zero byte": b"\x00",
        "zero bytes after": b'{"events":[]}\x00\x00',
        "an overlong slash": b'{"events":[{"user_id":"\xc0\xaf"}]}',
        "a surrogate in UTF-8": b'{"events":[{"user_id":"\xed\xa0\x80"}]}',
        "beyond Unicode": b'{"events":[{"user_id":"\xf4\x90\x80\x80"}]}',
        "two documents": '{"events":[]}{"events":[]}',
        "a key twice": '{"events":[],"events":[1],"batches":[],"batches":1}',
        "a field of each": '{"user_id":1,"events":[],"batches":[],"user_ids":[]}',
        "JavaScript": "({events: []})",
        "a callback": 'alert({"events":[]})',
        "XML": '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "YAML": "events: !!python/object/apply:os.system ['true']",
        "a pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94",
        "a form": "events=%5B%5D",
        "HTTP": f"GET /{FORGED} HTTP/1.1\r\nHost: a\r\n\r\n",
        "a log line": f'\n{{"event": "{FORGED}"}}\n',
        "deep arrays": "[" * 100_000,
        "deep arrays, closed": "[" * 100_000 + "]" * 100_000,
        "deep objects": '{"a":' * 100_000,
        "deep under a known field": '{"events":' + "[" * 50_000 + "]" * 50_000 + "}",
        "deep in a field that is not looked at": '[{"else":' + "[" * 5000 + "]" * 5000 + "}]",
        "an endless string": '"' + "a" * 100_000,
        "an endless number": "1" * 100_000,
        "an endless escape": '"' + "\\u0041" * 50_000 + '"',
        "backslashes": '"' + "\\" * 99_999,
        "the same key very often": "{" + ",".join('"events":[]' for _ in range(20_000)) + "}",
        "very many keys": "{" + ",".join(f'"k{n}":{n}' for n in range(20_000)) + "}",
        "keys of one hash": "{" + ",".join(f'"{n * (2**61 - 1)}":0' for n in range(2000)) + "}",
    }
    for name, document in documents.items():
        for target in _JSON_TARGETS:
            yield _fixed(name, target, document)


def _large() -> Iterator[Case]:
    yield Case("a million zeros", Target.JSON, lambda: b"[" + b"0," * 999_999 + b"0]")
    yield Case("a million empty objects", Target.JSON, lambda: b"[" + b"{}," * 999_999 + b"{}]")
    yield Case("a million empty arrays", Target.JSON, lambda: b"[" + b"[]," * 999_999 + b"[]]")
    yield Case("a million tiny lines", Target.NDJSON, lambda: b"0\n" * 1_000_000)
    yield Case("blank lines only", Target.NDJSON, lambda: b"\n" * (16 * _MIB))
    yield Case("lines of blanks", Target.NDJSON, lambda: b" \r\n" * (5 * _MIB))
    yield Case("16 MiB of brackets", Target.JSON, lambda: b"[" * (16 * _MIB))
    yield Case("16 MiB in one string", Target.JSON, lambda: b'["' + b"a" * (16 * _MIB - 4) + b'"]')
    yield Case("16 MiB of digits", Target.JSON, lambda: b"[" + b"9" * (16 * _MIB - 2) + b"]")
    yield Case("16 MiB of blanks", Target.JSON, lambda: b" " * (16 * _MIB))
    yield Case("16 MiB of escapes", Target.JSON, lambda: b'["' + b"\\u0041" * 2_796_000 + b'"]')
    yield Case("over 16 MiB", Target.JSON, lambda: b" " * (16 * _MIB + 1))
    digits = b'{"user_id":' + b"7" * 600 + b',"timestamp":1,"features":[1,2,3]}'
    yield Case("ids of 600 digits", Target.JSON, lambda: b"[" + b",".join([digits] * 25_000) + b"]")
    yield Case("50,000 broken events", Target.JSON, lambda: b"[" + b"{}," * 49_999 + b"{}]")
    fields = b'{"user_id":"u","timestamp":1,"features":[' + b",".join([b"1"] * 200_000) + b"]}"
    yield Case("200,000 features", Target.JSON, lambda: fields)
    yield Case(
        "a million batches", Target.SCORES, lambda: b'{"batches":[' + b"{}," * 999_999 + b"{}]}"
    )
    keys = ",".join(
        f'{{"key":"many-{n}","user_id":[],"timestamp":[],"score":[]}}' for n in range(1001)
    )
    yield Case("1,001 batches", Target.SCORES, f'{{"batches":[{keys}]}}'.encode)
    users = b",".join([b'"u"'] * 1_000_000)
    yield Case("a million users", Target.MEDIANS, lambda: b'{"user_ids":[' + users + b"]}")
    names = b",".join([b"null"] * 1_000_000)
    yield Case("a million nulls", Target.MEDIANS, lambda: b'{"user_ids":[' + names + b"]}")


def _stream(columns: dict[str, pa.Array], rows_a_batch: int | None = None) -> bytes:
    table, sink = pa.table(columns), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return sink.getvalue()


def _columns(rows: int, **changes: pa.Array) -> dict[str, pa.Array]:
    flat = pa.array(np.zeros(rows * 3, np.float32))
    good = {
        "user_id": pa.array(["u"] * rows),
        "timestamp": pa.array(np.ones(rows)),
        "features": pa.FixedSizeListArray.from_arrays(flat, 3),
    }
    return good | changes


def _arrow() -> Iterator[Case]:
    for number, stream in enumerate(arrow_streams()):
        yield _fixed(f"stream {number}", Target.ARROW, stream)
    whole = arrow_streams()[0]
    yield _fixed("a JSON body", Target.ARROW, '{"events":[]}')
    yield _fixed("an Arrow file", Target.ARROW, b"ARROW1\x00\x00" + whole + b"ARROW1")
    yield _fixed("twice the stream", Target.ARROW, whole + whole)
    yield _fixed("the largest length", Target.ARROW, b"\xff\xff\xff\xff\xff\xff\xff\x7f" + whole)
    yield _fixed("a negative length", Target.ARROW, b"\xff\xff\xff\xff\x00\x00\x00\x80" + whole)
    yield _fixed("markers only", Target.ARROW, b"\xff\xff\xff\xff\x00\x00\x00\x00" * 10_000)
    yield Case("a row a batch", Target.ARROW, lambda: _stream(_columns(3000), 1))
    yield Case("50,001 rows", Target.ARROW, lambda: _stream(_columns(50_001)))
    long_ids = pa.array(["u" * 257] * 50_000)
    yield Case("50,000 long ids", Target.ARROW, lambda: _stream(_columns(50_000, user_id=long_ids)))
    nulls = pa.nulls(50_000, pa.string())
    yield Case("50,000 nulls", Target.ARROW, lambda: _stream(_columns(50_000, user_id=nulls)))
    dictionary = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(900, np.int32)), pa.array(["d" * 200] * 5000)
    )
    yield Case(
        "a dictionary in each batch",
        Target.ARROW,
        lambda: _stream(_columns(900, user_id=dictionary), 1),
    )
    wide = {f"c{n}": pa.array([n]) for n in range(3000)}
    yield Case("3,000 columns", Target.ARROW, lambda: _stream(_columns(1) | wide))


def _packed(now: float) -> Iterator[Case]:
    column = np.array([now], "<f8").tobytes()
    good: dict[str, object] = {"batches": [{"key": "k", "events": 1}], "user_id": ["u"]}
    good |= {"timestamp": column, "score": column}
    for length in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x10000000):
        for name, mark in (
            ("array", b"\xdd"),
            ("map", b"\xdf"),
            ("text", b"\xdb"),
            ("bin", b"\xc6"),
        ):
            claim = mark + length.to_bytes(4, "big")
            yield _fixed(f"{name} of {length}", Target.PACKED, claim)
            for field in good:
                head = b"\x81" + msgspec.msgpack.encode(field)
                yield _fixed(f"{field}: {name} of {length}", Target.PACKED, head + claim)
    for name, value in (
        ("NaN", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf),
        ("the largest", 1.7e308), ("the smallest", 5e-324), ("minus zero", -0.0),
    ):  # fmt: skip
        for field in ("timestamp", "score"):
            odd = good | {field: np.array([value], "<f8").tobytes()}
            yield _fixed(f"{field}: {name}", Target.PACKED, msgspec.msgpack.encode(odd))
    for field in good:
        for name, raw in (
            ("deep", b"\x91" * 100_000), ("an extension", b"\xd4\x01\x00"),
            ("a date", b"\xd6\xff" + bytes(4)), ("never used", b"\xc1"),
            ("not UTF-8", b"\xa1\xff"), ("a surrogate", b"\xa3\xed\xa0\x80"),
        ):  # fmt: skip
            odd = good | {field: msgspec.Raw(raw)}
            yield _fixed(f"{field}: {name}", Target.PACKED, msgspec.msgpack.encode(odd))
    yield _fixed("a key that is no text", Target.PACKED, b"\x81\x01\x02")
    yield _fixed("JSON", Target.PACKED, '{"batches":[]}')
    empty = {"batches": [{"key": str(n), "events": 0} for n in range(1001)], "user_id": []}
    body = msgspec.msgpack.encode(empty | {"timestamp": b"", "score": b""})
    yield _fixed("1,001 batches", Target.PACKED, body)
    yield Case(
        "16 million nils", Target.PACKED, lambda: b"\x81\xa7batches\xdd\x01\0\0\0" + b"\xc0" * 2**24
    )


@cache
def _bomb(kind: str) -> bytes:
    """Return what grows a thousandfold when it is unpacked."""
    if kind == "gzip twice":
        return gzip.compress(_bomb("gzip"))
    return PACKERS[kind](b'{"batches":[' + b" " * (64 * _MIB))


def _encoded() -> Iterator[Case]:
    """Bodies that say they are compressed, and bombs."""
    for target in (Target.JSON, Target.SCORES, Target.MEDIANS):
        for name, encoding, kind in (
            ("a gzip bomb", "gzip", "gzip"),
            ("a bomb in a bomb", "gzip", "gzip twice"),
            ("a deflate bomb", "deflate", "deflate"),
            ("a zstd bomb", "zstd", "zstd"),
            ("a brotli bomb", "br", "br"),
        ):
            yield Case(name, target, partial(_bomb, kind), (("Content-Encoding", encoding),))
        for encoding in (
            "gzip",
            "deflate",
            "br",
            "zstd",
            "compress",
            "identity",
            "gzip, gzip",
            "x\u00ff",
        ):
            yield Case(
                f"{encoding} that is not",
                target,
                lambda: b'{"events":[]}',
                (("Content-Encoding", encoding),),
            )


def _sent_otherwise(now: float) -> Iterator[Case]:
    """Bodies under other media types or none, several documents, other formats' first bytes."""
    event = _event(now)
    bodies: dict[str, Callable[[], bytes]] = {
        "lines": f"{event}\n{event}\n".encode,
        "lines without ends": f"{event}{event}".encode,
        "lines after a mark": f"\ufeff{event}\n\ufeff{event}".encode,
        "a stream": lambda: arrow_streams()[0],
        "a million empty arrays in a row": lambda: b"[]" * 1_000_000,
        "a million empty lists of events": lambda: b'{"events":[]}' * 1_000_000,
        "a million lines of them": lambda: b'{"events":[]}\n' * 1_000_000,
        "a line, and a million blank ones": lambda: event.encode() + b"\n" * 1_000_000,
        "brackets in lines": lambda: b"[\n" * 1_000_000,
        "braces in lines": lambda: b'{"a":\n' * 1_000_000,
        "strings in lines": lambda: b'"[\n' * 1_000_000,
        "a key a million times": lambda: b"{" + b'"events":[],' * 1_000_000 + b"}",
        "a million members of gzip": lambda: gzip.compress(b"") * 800_000,
        "a million frames of zstd": lambda: PACKERS["zstd"](b"") * 1_000_000,
    }
    starts = (
        b"ARROW1", b"PAR1", b"PK\x03\x04", b"BZh", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ",
        b"\x89HDF", b"\x80\x04", b"\xff\xfe{\x00", b"\x00{", b"user_id,",
    )  # fmt: skip
    bodies |= {f"the start {start!r}": partial(bytes, start) for start in starts}
    for name, make in bodies.items():
        yield Case(name, Target.JSON, make)
        yield Case(name, Target.NDJSON, make)
        yield Case(name, Target.ARROW, make)
        for media_type in ("", "application/octet-stream", "text/csv"):
            headers = (("Content-Type", media_type),)
            yield Case(f"{name} as {media_type!r}", Target.JSON, make, headers)


def _cut_short(now: float) -> Iterator[Case]:
    """Cut a good body of each target after every byte."""
    for target in Target:
        if target is not Target.QUERY:
            whole = Grammar(Random(1), 0.0, now).body(target)  # noqa: S311 - no secret
            for length in range(len(whole)):
                yield _fixed(f"cut after {length} bytes", target, whole[:length])
