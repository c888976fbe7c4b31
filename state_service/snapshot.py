"""Snapshots on disk: each sealed segment is written once, and once it has expired it is deleted.

The rules
---------
1. The catalogue (tables `segment`, `key_set`, `covered`) says which blocks are the snapshot. A
   block that it does not name does not exist for a reader.
2. So a snapshot is written in two steps. First its new blocks, each a small transaction of its
   own, between which journal commits go through. Then one tiny transaction, `commit`, changes the
   catalogue: new segments and keys in, expired ones out, and the number of the last journal row
   that they cover. It is the one moment at which the old snapshot becomes the new one.
3. Only then are blocks that are no longer named deleted, one at a time.

Why it holds: a kill before the commit leaves the old catalogue, and the journal rows that it does
not cover; blocks already written are garbage, found at the next start. A kill after it leaves the
new catalogue, and garbage. At no time are events in both the catalogue and an uncovered journal
row, or in neither. A failed snapshot changes nothing; the blocks it has written are kept for the
next one.

Batch keys travel in blocks of their own, a set a snapshot: with their events, in the same commit,
so that without a journal a key can never outlive what it counted.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Self

from state_service.batch_keys import SeenKey
from state_service.errors import StorageError
from state_service.event_clock import ClockState
from state_service.formats import (
    BLOCK_ROWS,
    DamagedError,
    Record,
    StoredSegment,
    decode_keys,
    decode_segment_block,
    encode_keys,
    join_blocks,
    record,
)
from state_service.schema import INSERT_BLOCK, require_blocks, require_event_clock
from state_service.store import Store


class DamagedBlock(NamedTuple):
    """A block that cannot be read, and why; without a reason it is gone."""

    number: int
    reason: str | None


class KeySet(NamedTuple):
    """One snapshot's new batch keys: their blocks, and when the newest was seen."""

    blocks: range
    newest_seen_at: float


class SnapshotStore:
    """The snapshot in one database. One writer."""

    def __init__(
        self,
        store: Store,
        segments: dict[int, range],
        key_sets: list[KeySet],
        garbage: Iterable[int],
        next_block: int,
    ) -> None:
        self._store = store
        self._catalogue = segments  # blocks by segment number
        self._written = dict(segments)  # the same, of segments that a commit could name
        self._key_sets = key_sets
        self._garbage = deque(garbage)
        self._next_block = next_block

    @classmethod
    async def open(cls, store: Store) -> Self:
        """Read the catalogue; no block is read yet. Raises `StorageError` if it cannot be so."""
        numbers = [number for (number,) in await store.read("SELECT number FROM block")]
        aside = await store.read("SELECT number FROM quarantine WHERE record = 'block'")
        known = [*numbers, *(number for (number,) in aside if isinstance(number, int))]
        segments = {
            number: require_blocks(first, blocks, len(known))
            for number, first, blocks in await store.read(
                "SELECT number, first_block, blocks FROM segment ORDER BY number"
            )
        }
        key_sets = [
            KeySet(require_blocks(first, blocks, len(known)), _require_time(newest_seen_at))
            for first, blocks, newest_seen_at in await store.read(
                "SELECT first_block, blocks, newest_seen_at FROM key_set ORDER BY first_block"
            )
        ]
        named = _all_of([*segments.values(), *(key_set.blocks for key_set in key_sets)])
        next_block = max([0, *known, *named]) + 1
        return cls(store, segments, key_sets, sorted(set(numbers) - named), next_block)

    # --- reading ------------------------------------------------------------------------------

    @property
    def segment_numbers(self) -> list[int]:
        """Numbers of the snapshot's segments, oldest first."""
        return sorted(self._catalogue)

    async def load_segment(self, number: int) -> tuple[StoredSegment | None, list[DamagedBlock]]:
        """Read one segment back without its damaged blocks; None when nothing is left of it.

        Then its number may be given to another segment.
        """
        blocks: list[StoredSegment] = []
        damaged: list[DamagedBlock] = []
        for block, crc32, payload in await self._read(self._written[number], damaged):
            try:
                blocks.append(decode_segment_block(payload, crc32))
            except DamagedError as error:
                damaged.append(DamagedBlock(block, str(error)))
        if blocks:
            return join_blocks(blocks), damaged
        del self._written[number]
        return None, damaged

    async def load_clock(self) -> ClockState | None:
        """Read back how the event clock stood. Raises `StorageError`."""
        return require_event_clock(await self._store.read("SELECT * FROM replay_clock"))

    async def load_keys(self, horizon: float) -> tuple[list[SeenKey], list[DamagedBlock]]:
        """Read back the batch keys seen at or after `horizon`, oldest first."""
        keys: list[SeenKey] = []
        damaged: list[DamagedBlock] = []
        for key_set in self._key_sets:
            if key_set.newest_seen_at < horizon:
                continue
            for block, crc32, payload in await self._read(key_set.blocks, damaged):
                try:
                    keys += decode_keys(payload, crc32)
                except DamagedError as error:
                    damaged.append(DamagedBlock(block, str(error)))
        return [seen for seen in keys if seen.seen_at >= horizon], damaged

    async def _read(
        self, blocks: range, damaged: list[DamagedBlock]
    ) -> list[tuple[int, int, bytes]]:
        """Return the rows of a range of blocks; one neither there nor put aside is damage too."""
        between = (blocks.start, blocks.stop - 1)
        rows = await self._store.read(
            "SELECT number, crc32, CAST(payload AS BLOB) FROM block "
            "WHERE number BETWEEN ? AND ? ORDER BY number",
            *between,
        )
        if len(rows) < len(blocks):
            aside = await self._store.read(
                "SELECT number FROM quarantine WHERE record = 'block' AND number BETWEEN ? AND ?",
                *between,
            )
            there = {number for number, *_ in rows} | {number for (number,) in aside}
            damaged += [DamagedBlock(block, None) for block in blocks if block not in there]
        return rows

    # --- writing ------------------------------------------------------------------------------

    def is_written(self, number: int) -> bool:
        """Tell whether a segment's blocks are on disk."""
        return number in self._written

    async def write_segment(self, number: int, blocks: Sequence[Record]) -> None:
        """Write a segment's blocks; nobody sees them until `commit`. Raises `aiosqlite.Error`."""
        self._written[number] = await self._write(blocks)

    async def write_keys(self, seen_keys: Sequence[SeenKey]) -> KeySet | None:
        """Write batch keys for the next `commit`; None when there are none."""
        if not seen_keys:
            return None
        blocks = await asyncio.to_thread(_key_blocks, seen_keys)
        return KeySet(await self._write(blocks), max(seen.seen_at for seen in seen_keys))

    async def _write(self, records: Sequence[Record]) -> range:
        blocks = range(self._next_block, self._next_block + len(records))
        self._next_block = blocks.stop
        try:
            for number, row in zip(blocks, records, strict=True):
                await self._store.write(INSERT_BLOCK, number, *row)
        except BaseException:
            self._garbage.extend(blocks)
            raise
        return blocks

    async def commit(
        self,
        live: Collection[int],
        keys: KeySet | None,
        keys_horizon: float,
        covered: int,
        clock: ClockState | None = None,
    ) -> None:
        """Make what has been written the snapshot: segments `live` and no others.

        Key sets whose newest key was seen before `keys_horizon` go; journal rows up to `covered`
        are in it, and the event clock stood so. All of it or nothing. Raises `aiosqlite.Error`.
        """
        named = {number: self._written[number] for number in live}
        new = [
            (number, blocks.start, len(blocks))
            for number, blocks in named.items()
            if self._catalogue.get(number) != blocks
        ]
        gone = self._catalogue.keys() - named.keys()
        old_sets = [old for old in self._key_sets if old.newest_seen_at < keys_horizon]
        try:
            async with self._store.transaction() as connection:
                await connection.executemany("INSERT OR REPLACE INTO segment VALUES (?, ?, ?)", new)
                await connection.executemany(
                    "DELETE FROM segment WHERE number = ?", [(number,) for number in gone]
                )
                await connection.executemany(
                    "INSERT INTO key_set VALUES (?, ?, ?)",
                    [(k.blocks.start, len(k.blocks), k.newest_seen_at) for k in [keys] if k],
                )
                await connection.executemany(
                    "DELETE FROM key_set WHERE first_block = ?",
                    [(old.blocks.start,) for old in old_sets],
                )
                await connection.execute_fetchall("UPDATE covered SET sequence = ?", (covered,))
                await connection.execute_fetchall("DELETE FROM replay_clock")
                if clock is not None:
                    await connection.execute_fetchall(
                        "INSERT INTO replay_clock VALUES (?, ?, ?, ?, ?)", clock
                    )
        except BaseException:
            self._garbage.extend(keys.blocks if keys else ())
            raise
        for blocks in {*self._catalogue.values(), *self._written.values()} - {*named.values()}:
            self._garbage.extend(blocks)
        self._catalogue, self._written = named, dict(named)
        for old in old_sets:
            self._garbage.extend(old.blocks)
        kept = [key_set for key_set in self._key_sets if key_set not in old_sets]
        self._key_sets = kept + ([keys] if keys else [])

    async def sweep(self) -> None:
        """Delete blocks that the catalogue does not name, one by one. Raises `aiosqlite.Error`."""
        while self._garbage:
            await self._store.delete("block", [self._garbage[0]])
            self._garbage.popleft()


def _require_time(newest_seen_at: object) -> float:
    if not isinstance(newest_seen_at, float | int):
        raise StorageError(f"a key set's newest key was seen at {newest_seen_at!r}, not a number")
    return newest_seen_at


def _all_of(ranges: Sequence[range]) -> set[int]:
    """Return the blocks of all ranges. Raises `StorageError` when one is in two of them."""
    blocks = {block for some in ranges for block in some}
    if len(blocks) < sum(map(len, ranges)):  # its events would count twice
        raise StorageError("a block is in two segments or key sets")
    return blocks


def _key_blocks(seen_keys: Sequence[SeenKey]) -> list[Record]:
    cuts = range(0, len(seen_keys), BLOCK_ROWS)
    return [record(encode_keys(seen_keys[cut : cut + BLOCK_ROWS])) for cut in cuts]
