"""The records on disk <-> arrays. Pure; docs/formats.md draws them byte by byte.

The rules
---------
1. A record is a payload and its CRC-32, side by side in one row. The payload is self-contained
   MessagePack: it carries its own lengths and user ids, never a slot, so it means the same to
   every process that reads it.
2. Numbers are little-endian columns of 8 bytes: a score comes back to the last bit.
3. A record is written once and never changed. Nothing on disk needs to be updated to be read.
4. Reading trusts nothing: a checksum that does not match, bytes that do not decode, and columns
   whose lengths disagree all raise `DamagedError`, which says what was wrong. An early reader that
   assumed a length gave wrong medians at full speed; this one cannot.

There are three kinds: a *segment block* (some users' runs of a sealed segment), a *key block*
(batch keys and what their batches counted) and a *journal group* (what one commit accepted). A
segment is cut into blocks of bounded size, inside a user's run if need be, so that no single write
is long.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.segment import Segment

BLOCK_ROWS = 32_768  # events or keys a block: half a MiB, some milliseconds to write or delete


class DamagedError(Exception):
    """A record's bytes are not what was written; the message says what is wrong with them."""


class _SegmentBlock(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    user_ids: list[str]
    counts: bytes  # <i8 [users]
    timestamps: bytes  # <f8 [events]
    scores: bytes  # <f8 [events]


class _KeyBlock(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    keys: list[str]
    seen_at: bytes  # <f8 [keys]
    counts: bytes  # <i8 [keys, 3]: accepted, late, future


class _Group(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    seen_at: float
    keys: list[str]
    counts: bytes  # <i8 [keys, 3]: accepted, late, future
    user_ids: list[str]
    timestamps: bytes  # <f8 [events]
    scores: bytes  # <f8 [events]


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment, or a block of one: `counts` int64 [users], the other columns float64 [events].

    User i's run are the next `counts[i]` events, ascending by score.
    """

    user_ids: list[str]
    counts: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Group:
    """What one commit accepted: batches, and their accepted events one after the other.

    `seen_at` is the windows' time at which its keys were seen. `counts` is int64 [batches, 3]:
    accepted, late, future; the accepted ones add up to the events.
    """

    seen_at: float
    keys: list[str]
    counts: NDArray[np.int64]
    user_ids: list[str]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]

    def seen_keys(self, event_time: float | None = None) -> Iterator[SeenKey]:
        """Yield each batch as it is remembered.

        With the `event_time` after the group: not before that, nor before the batch's own newest
        event, so that it lives as long as they can come again. Those of other batches do not count.
        """
        moments = [self.seen_at] * len(self.keys)
        if event_time is not None:
            newest = np.full(len(self.keys), max(self.seen_at, event_time))
            accepted = self.counts[:, 0]
            some = accepted > 0
            if some.any():
                begins = (np.cumsum(accepted) - accepted)[some]
                newest[some] = np.maximum(
                    newest[some], np.maximum.reduceat(self.timestamps, begins)
                )
            moments = newest.tolist()
        for key, seen_at, counts in zip(self.keys, moments, self.counts.tolist(), strict=True):
            yield SeenKey(key, seen_at, BatchCounts(*counts))


class Record(NamedTuple):
    """A payload beside its CRC-32, as both stand in a row."""

    crc32: int
    payload: bytes


def checksum(payload: bytes) -> int:
    """Return a payload's CRC-32."""
    return zlib.crc32(payload)


def record(payload: bytes) -> Record:
    """Return a payload with its CRC-32. O(bytes)."""
    return Record(checksum(payload), payload)


# --- segments ---------------------------------------------------------------------------------


def encode_segment(
    segment: Segment, user_ids: Sequence[str], block_rows: int = BLOCK_ROWS
) -> Iterator[bytes]:
    """Yield a segment's blocks of at most `block_rows` events; `user_ids` in order of its runs."""
    ends, timestamps, scores = np.cumsum(segment.counts), segment.timestamps, segment.scores
    total = int(ends[-1])
    for begin in range(0, total, block_rows):
        end = min(begin + block_rows, total)
        first = int(ends.searchsorted(begin, "right"))
        last = int(ends.searchsorted(end, "left"))
        edges = np.clip(ends[first : last + 1], begin, end)
        yield msgspec.msgpack.encode(
            _SegmentBlock(
                list(user_ids[first : last + 1]),
                np.diff(edges, prepend=begin).astype("<i8").tobytes(),
                timestamps[begin:end].astype("<f8").tobytes(),
                scores[begin:end].astype("<f8").tobytes(),
            )
        )


def decode_segment_block(payload: bytes, crc32: int) -> StoredSegment:
    """Return a block's part of its segment. Raises `DamagedError`."""
    fields = _decode(payload, crc32, _SegmentBlock)
    counts = _integers(fields.counts)
    stored = StoredSegment(
        fields.user_ids, counts, _floats(fields.timestamps), _floats(fields.scores)
    )
    events = len(stored.scores)
    _require(len(counts) == len(fields.user_ids) > 0, "it has not one count a user")
    _require(bool((counts > 0).all()), "a user in it has no events")
    _require(len(set(fields.user_ids)) == len(counts), "a user is in it twice")
    _require(len(stored.timestamps) == events == int(counts.sum()), "its columns differ in length")
    _require_numbers(stored.timestamps, stored.scores)
    ascending = stored.scores[1:] >= stored.scores[:-1]
    ascending[np.cumsum(counts)[:-1] - 1] = True  # from one user's run to the next
    _require(bool(ascending.all()), "a user's scores in it do not ascend")
    return stored


def join_blocks(blocks: Sequence[StoredSegment]) -> StoredSegment:
    """Put a segment's blocks, in order, together again; a run that was cut becomes one."""
    if len(blocks) == 1:
        return blocks[0]
    user_ids: list[str] = []
    counts = [np.empty(0, np.int64)]
    for block in blocks:
        mine = block.counts
        if user_ids and user_ids[-1] == block.user_ids[0]:
            counts[-1] = counts[-1].copy()
            counts[-1][-1] += mine[0]
            mine = mine[1:]
            user_ids += block.user_ids[1:]
        else:
            user_ids += block.user_ids
        if len(mine):
            counts.append(mine)
    return StoredSegment(
        user_ids,
        np.concatenate(counts),
        np.concatenate([block.timestamps for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
    )


# --- batch keys -------------------------------------------------------------------------------


def encode_keys(seen_keys: Sequence[SeenKey]) -> bytes:
    """Return a block of batch keys."""
    return msgspec.msgpack.encode(
        _KeyBlock(
            [seen.key for seen in seen_keys],
            np.array([seen.seen_at for seen in seen_keys], "<f8").tobytes(),
            np.array([seen.counts for seen in seen_keys], "<i8").tobytes(),
        )
    )


def decode_keys(payload: bytes, crc32: int) -> list[SeenKey]:
    """Return a block's batch keys, in the order in which they were seen. Raises `DamagedError`."""
    fields = _decode(payload, crc32, _KeyBlock)
    seen_at = np.frombuffer(_whole(fields.seen_at, 8), "<f8")
    counts = _triples(fields.counts)
    _require(len(fields.keys) == len(seen_at) == len(counts) > 0, "its columns differ in length")
    return [
        SeenKey(key, moment, BatchCounts(*row))
        for key, moment, row in zip(fields.keys, seen_at.tolist(), counts.tolist(), strict=True)
    ]


# --- journal groups ---------------------------------------------------------------------------


def encode_group(group: Group) -> bytes:
    """Return a journal row's payload."""
    return msgspec.msgpack.encode(
        _Group(
            group.seen_at,
            group.keys,
            group.counts.astype("<i8").tobytes(),
            group.user_ids,
            group.timestamps.astype("<f8").tobytes(),
            group.scores.astype("<f8").tobytes(),
        )
    )


def decode_group(payload: bytes, crc32: int) -> Group:
    """Return what a commit accepted. Raises `DamagedError`."""
    fields = _decode(payload, crc32, _Group)
    group = Group(
        fields.seen_at,
        fields.keys,
        _triples(fields.counts),
        fields.user_ids,
        _floats(fields.timestamps),
        _floats(fields.scores),
    )
    events = len(group.user_ids)
    _require(len(group.keys) == len(group.counts), "it has not one row of counts a key")
    _require(
        len(group.timestamps) == len(group.scores) == events == int(group.counts[:, 0].sum()),
        "its columns differ in length",
    )
    _require_numbers(group.timestamps, group.scores)
    return group


# --- inside -----------------------------------------------------------------------------------

_Record = TypeVar("_Record", bound=msgspec.Struct)


def _decode(payload: bytes, crc32: int, kind: type[_Record]) -> _Record:
    _require(isinstance(payload, bytes) and checksum(payload) == crc32, "its checksum is wrong")
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"it cannot be decoded: {error}") from None


def _whole(column: bytes, width: int) -> bytes:
    _require(len(column) % width == 0, "a column ends in the middle of a number")
    return column


def _integers(column: bytes) -> NDArray[np.int64]:
    return np.frombuffer(_whole(column, 8), "<i8").astype(np.int64)


def _floats(column: bytes) -> NDArray[np.float64]:
    return np.frombuffer(_whole(column, 8), "<f8").astype(np.float64)


def _triples(column: bytes) -> NDArray[np.int64]:
    counts = _integers(_whole(column, 24)).reshape(-1, 3)
    _require(bool((counts >= 0).all()), "a count is negative")
    return counts


def _require_numbers(*columns: NDArray[np.float64]) -> None:
    _require(all(np.isfinite(column).all() for column in columns), "a number is not finite")


def _require(condition: bool, problem: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise DamagedError(problem)
