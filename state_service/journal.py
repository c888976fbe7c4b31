"""The journal: what has been acknowledged and is not in a snapshot yet, a row a commit.

A row is written, and its transaction committed, before anything of it is visible or acknowledged.
Rows are numbered without gaps in the order in which they were applied. A snapshot covers all rows
up to a number; these are ignored by a restore from the moment the snapshot is valid, and deleted
afterwards in bites: deleting 1,500 rows at once would hold up the next commit for 45 ms.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple, Self

from state_service.formats import DamagedError, Group, Record, decode_group, encode_group, record
from state_service.schema import require_covered
from state_service.store import Store

_READ_ROWS = 32  # rows read back at a time
_BITE_ROWS, _BITE_BYTES = 64, 1 << 20  # deleted in one transaction: about 2 ms
_INLINE_EVENTS = 8_192  # encoding more than that would be felt on the event loop


class JournalRow(NamedTuple):
    """One row read back: its group, or why it is damaged; neither when it is gone."""

    sequence: int
    group: Group | None
    damage: str | None


class Journal:
    """The journal's rows. One writer; `append` in ascending order of sequence."""

    def __init__(self, store: Store, rows: deque[tuple[int, int]], covered: int) -> None:
        self._store = store
        self._rows = rows  # (sequence, bytes) of each row on disk
        self._bytes = sum(size for _, size in rows)
        self._covered = covered

    @classmethod
    async def open(cls, store: Store) -> Self:
        """Look at what is there; nothing is decoded yet. Raises `StorageError`."""
        query = "SELECT sequence, coalesce(length(payload), 0) FROM journal ORDER BY sequence"
        rows = deque((sequence, size) for sequence, size in await store.read(query))
        covered = await store.read("SELECT sequence FROM covered")
        return cls(store, rows, require_covered(covered))

    @property
    def covered(self) -> int:
        """Rows up to this number are in the snapshot."""
        return self._covered

    @property
    def last_sequence(self) -> int:
        """The highest number given so far."""
        return max(self._covered, self._rows[-1][0] if self._rows else 0)

    @property
    def rows(self) -> int:
        """Rows on disk, those included that wait for being deleted. O(1)."""
        return len(self._rows)

    @property
    def bytes(self) -> int:
        """Size of their payloads. O(1)."""
        return self._bytes

    async def append(self, sequence: int, group: Group) -> None:
        """Commit one group. Raises `aiosqlite.Error`, and then nothing has been written."""
        if len(group.user_ids) <= _INLINE_EVENTS:
            row = _encode(group)
        else:
            row = await asyncio.to_thread(_encode, group)
        await self._store.write("INSERT INTO journal VALUES (?, ?, ?)", sequence, *row)
        self._rows.append((sequence, len(row.payload)))
        self._bytes += len(row.payload)

    async def uncovered(self) -> AsyncIterator[JournalRow]:
        """Read back, in order, the rows that no snapshot covers.

        Where numbers are missing, rows have gone: the first of them comes as one that is gone,
        unless it is in quarantine.
        """
        query = "SELECT number FROM quarantine WHERE record = 'journal'"
        aside = {number for (number,) in await self._store.read(query)}
        query = (
            "SELECT sequence, crc32, CAST(payload AS BLOB) FROM journal WHERE sequence > ? "
            "ORDER BY sequence LIMIT ?"
        )
        after = self._covered
        while rows := await self._store.read(query, after, _READ_ROWS):
            for sequence, crc32, payload in rows:
                expected = after + 1
                while expected in aside:
                    expected += 1
                if sequence > expected:
                    yield JournalRow(expected, None, None)
                try:
                    yield JournalRow(sequence, decode_group(payload, crc32), None)
                except DamagedError as error:
                    yield JournalRow(sequence, None, str(error))
                after = sequence

    def count_uncovered(self) -> int:
        """Return how many rows `uncovered` reads."""
        return sum(sequence > self._covered for sequence, _ in self._rows)

    async def cover(self, sequence: int) -> None:
        """Delete, in bites, the rows that a valid snapshot covers. Raises `aiosqlite.Error`."""
        self._covered = sequence
        while bite := self._bite():
            await self._store.delete("journal", bite)
            for _ in bite:
                self._bytes -= self._rows.popleft()[1]

    async def rewrite(self) -> None:
        """Write the rows that no snapshot covers anew, and nothing else. Raises `aiosqlite.Error`.

        Of a row that SQLite has moved within the table, an older copy may lie in a page's unused
        part: the pages are emptied whole. Those are few rows: `cover` comes first.
        """
        async with self._store.transaction() as connection:
            rows = await connection.execute_fetchall(
                "SELECT sequence, crc32, payload FROM journal WHERE sequence > ?", (self._covered,)
            )
            await connection.execute_fetchall("DELETE FROM journal")
            await connection.executemany("INSERT INTO journal VALUES (?, ?, ?)", rows)
        while self._rows and self._rows[0][0] <= self._covered:
            self._rows.popleft()

    def _bite(self) -> list[int]:
        """Return the oldest covered rows, as many as may be deleted at once."""
        bite: list[int] = []
        size = 0
        for sequence, row_bytes in self._rows:
            if sequence > self._covered or len(bite) == _BITE_ROWS:
                break
            if bite and size + row_bytes > _BITE_BYTES:
                break
            bite.append(sequence)
            size += row_bytes
        return bite


def _encode(group: Group) -> Record:
    return record(encode_group(group))
