"""Records on disk: they come back to the last bit, and nothing that is damaged is believed."""

import re
import sqlite3
import struct
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.formats import (
    DamagedError,
    Group,
    checksum,
    decode_group,
    decode_keys,
    decode_segment_block,
    encode_group,
    encode_keys,
    encode_segment,
    join_blocks,
)
from state_service.schema import SCHEMA_VERSION
from state_service.segment import Segment
from tests.state_service.state_support import REPOSITORY, batch, serving

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
counts = st.tuples(*[st.integers(0, 2**40)] * 3)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    events = draw(st.lists(st.tuples(texts, finite, finite), max_size=20))
    accepted = np.bincount(
        draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events))), minlength=4
    )
    rows = [(int(count), *draw(st.tuples(*[st.integers(0, 9)] * 2))) for count in accepted]
    columns = list(zip(*events, strict=True)) or [(), (), ()]
    return Group(
        draw(st.floats(allow_nan=False)),
        draw(st.lists(texts, min_size=4, max_size=4)),
        np.array(rows, np.int64),
        list(columns[0]),
        np.array(columns[1], np.float64),
        np.array(columns[2], np.float64),
    )


@given(groups())
def test_a_group_comes_back_to_the_last_bit(group: Group) -> None:
    payload = encode_group(group)
    back = decode_group(payload, checksum(payload))
    assert (back.seen_at, back.keys, back.user_ids) == (group.seen_at, group.keys, group.user_ids)
    assert back.counts.tolist() == group.counts.tolist()
    assert back.timestamps.tobytes() == group.timestamps.tobytes()
    assert back.scores.tobytes() == group.scores.tobytes()


@given(
    st.lists(st.builds(SeenKey, texts, finite, st.builds(BatchCounts._make, counts)), min_size=1)
)
def test_keys_come_back_in_their_order(seen: list[SeenKey]) -> None:
    payload = encode_keys(seen)
    assert decode_keys(payload, checksum(payload)) == seen


@given(
    st.lists(st.tuples(st.integers(0, 5), finite, finite), min_size=1, max_size=60),
    st.integers(1, 7),
)
def test_a_segment_may_be_cut_anywhere(events: list[Any], block_rows: int) -> None:
    slots, timestamps, scores = (np.array(column) for column in zip(*events, strict=True))
    segment = Segment.build(1, slots.astype(np.int32), timestamps, scores)
    user_ids = [f"user {slot}" for slot in segment.slots]
    payloads = list(encode_segment(segment, user_ids, block_rows))
    blocks = [decode_segment_block(payload, checksum(payload)) for payload in payloads]
    assert max(len(block.scores) for block in blocks) <= block_rows
    assert len(blocks) == -(-len(events) // block_rows)
    whole = join_blocks(blocks)
    assert whole.user_ids == user_ids
    assert whole.counts.tolist() == segment.counts.tolist()
    assert whole.timestamps.tobytes() == segment.timestamps.tobytes()
    assert whole.scores.tobytes() == segment.scores.tobytes()


def _records() -> dict[str, tuple[bytes, Any]]:
    """Return a good payload of each kind, and what reads it."""
    columns = (np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.75, 0.25]))
    segment = Segment.build(1, np.array([7, 7, 9], np.int32), *columns)
    group = Group(5.0, ["k", "l"], np.array([[1, 0, 0], [2, 1, 0]]), ["a", "b", "c"], *columns)
    return {
        "segment": (next(encode_segment(segment, ["a", "b"])), decode_segment_block),
        "keys": (encode_keys([SeenKey("k", 1.0, BatchCounts(1, 2, 3))]), decode_keys),
        "group": (encode_group(group), decode_group),
    }


@pytest.mark.parametrize("kind", _records())
def test_no_damaged_byte_goes_unnoticed(kind: str) -> None:
    payload, decode = _records()[kind]
    decode(payload, checksum(payload))
    for place in range(len(payload)):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[place] ^= 1 << bit
            with pytest.raises(DamagedError):
                decode(bytes(damaged), checksum(payload))
        with pytest.raises(DamagedError):
            decode(payload[:place], checksum(payload))
    with pytest.raises(DamagedError):
        decode("text", 0)


@pytest.mark.parametrize("kind", _records())
def test_columns_that_disagree_are_refused_even_with_a_right_checksum(kind: str) -> None:
    """A reader that believes a length gives wrong medians at full speed."""
    payload, decode = _records()[kind]
    fields: list[Any] = msgspec.msgpack.decode(payload)
    wrong = []
    for place, value in enumerate(fields):
        if isinstance(value, (bytes, list)):
            size = 8 if isinstance(value, bytes) else 1
            end: Any = value[-size:]
            shorter, longer = value[:-size], value + end
            wrong += [[*fields[:place], other, *fields[place + 1 :]] for other in (shorter, longer)]
            wrong.append([*fields[:place], value[:-1], *fields[place + 1 :]])
        wrong.append([*fields[:place], None, *fields[place + 1 :]])
    wrong += [fields[:-1], [*fields, b""], []]
    for other in wrong:
        with pytest.raises(DamagedError):
            decode(again := msgspec.msgpack.encode(other), checksum(again))


@pytest.mark.parametrize(
    ("user_ids", "scores"),
    [
        (["a", "a"], [1.0, 2.0, 3.0]),
        (["a", "b"], [2.0, 1.0, 3.0]),
        (["a", "b"], [1.0, np.nan, 3.0]),
    ],
)
def test_a_block_that_breaks_the_rules_of_a_segment_is_refused(
    user_ids: list[str], scores: list[float]
) -> None:
    columns = (np.array([2, 1]), np.array([1.0, 2.0, 3.0]), np.array(scores))
    payload = msgspec.msgpack.encode([user_ids, *(column.tobytes() for column in columns)])
    with pytest.raises(DamagedError):
        decode_segment_block(payload, checksum(payload))


# --- docs/formats.md --------------------------------------------------------------------------


class _ByTheBook:
    """Reads a payload with nothing but what docs/formats.md says."""

    def __init__(self, payload: bytes) -> None:
        self.rest = payload

    def take(self, size: int) -> bytes:
        taken, self.rest = self.rest[:size], self.rest[size:]
        assert len(taken) == size
        return taken

    def length(self, short: int, mask: int, long: dict[int, str]) -> int:
        (head,) = self.take(1)
        if head in long:
            return int(struct.unpack(">" + long[head], self.take(struct.calcsize(long[head])))[0])
        assert mask
        assert head & ~mask == short
        return head & mask

    def array(self, size: int) -> None:
        assert self.take(1) == bytes([0x90 + size])

    def texts(self) -> list[str]:
        size = self.length(0x90, 0x0F, {0xDC: "H", 0xDD: "I"})
        lengths = {0xD9: "B", 0xDA: "H", 0xDB: "I"}
        return [self.take(self.length(0xA0, 0x1F, lengths)).decode() for _ in range(size)]

    def column(self, kind: str) -> list[Any]:
        column = self.take(self.length(0, 0, {0xC4: "B", 0xC5: "H", 0xC6: "I"}))
        return list(struct.unpack(f"<{len(column) // 8}{kind}", column))

    def number(self) -> float:
        assert self.take(1) == b"\xcb"
        return float(struct.unpack(">d", self.take(8))[0])


async def test_a_real_file_can_be_read_by_its_description_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.record(batch("k1", ["ann", "bob", "ann"] * 30, [0.5, -1e300, 0.25] * 30))
        await server.record(batch("long " * 20, ["ü" * 100], [7.0]))
        assert await server.service.snapshot()
        await server.record(
            batch("k3", ["cid", "late"], [5e-324, 1.0], [server.service.clock(), 1.0])
        )
        with closing(sqlite3.connect(tmp_path / "state.db")) as source:
            copy = sqlite3.connect(":memory:")
            source.backup(copy)
    with closing(copy):
        execute = copy.execute
        assert execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        query = "SELECT number, crc32, payload, shield FROM block"
        blocks = {number: row for number, *row in execute(query).fetchall()}
        for crc32, payload, shield in blocks.values():
            assert zlib.crc32(payload) == crc32
            assert shield == bytes(4096)
        events = []
        for _, first, count in execute("SELECT * FROM segment").fetchall():
            for number in range(first, first + count):
                reader = _ByTheBook(blocks[number][1])
                reader.array(4)
                users, sizes = reader.texts(), reader.column("q")
                reader.column("d")
                scores = reader.column("d")
                assert reader.rest == b""
                for user, size in zip(users, sizes, strict=True):
                    events += [(user, score) for score in scores[:size]]
                    assert scores[:size] == sorted(scores[:size])
                    del scores[:size]
        keys: dict[str, tuple[int, ...]] = {}
        for first, count, _ in execute("SELECT * FROM key_set").fetchall():
            for number in range(first, first + count):
                reader = _ByTheBook(blocks[number][1])
                reader.array(3)
                names, _, numbers = reader.texts(), reader.column("d"), reader.column("q")
                assert reader.rest == b""
                keys.update(zip(names, zip(*[iter(numbers)] * 3, strict=True), strict=True))
        ((covered,),) = execute("SELECT sequence FROM covered").fetchall()
        query = "SELECT crc32, payload FROM journal WHERE sequence > ? ORDER BY sequence"
        for crc32, payload in execute(query, (covered,)).fetchall():
            assert zlib.crc32(payload) == crc32
            reader = _ByTheBook(payload)
            reader.array(6)
            reader.number()
            names, numbers, users = reader.texts(), reader.column("q"), reader.texts()
            reader.column("d")
            events += zip(users, reader.column("d"), strict=True)
            assert reader.rest == b""
            keys.update(zip(names, zip(*[iter(numbers)] * 3, strict=True), strict=True))
    assert Counter(events) == {
        ("ann", 0.5): 30,
        ("bob", -1e300): 30,
        ("ann", 0.25): 30,
        ("ü" * 100, 7.0): 1,
        ("cid", 5e-324): 1,
    }
    assert keys == {"k1": (90, 0, 0), "long " * 20: (1, 0, 0), "k3": (1, 1, 0)}


async def test_the_description_names_every_table_and_column(tmp_path: Path) -> None:
    async with serving(tmp_path):
        pass
    text = (REPOSITORY / "docs" / "formats.md").read_text()
    assert f"`PRAGMA user_version` is {SCHEMA_VERSION}." in text
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        names = {"block", "segment", "key_set", "journal", "covered", "quarantine"}
        assert tables == names | {"forgotten", "hash_key", "replay_clock"}
        for table in tables:
            (line,) = re.findall(rf"^{table} +.*", text, re.MULTILINE)
            for column in database.execute(f"PRAGMA table_info({table})").fetchall():
                assert f"{column[1]} {column[2]}" in line
