"""Snapshots in SQLite: each sealed segment is written once and deleted once it has expired.

A snapshot is one transaction: new segments, new batch keys, deletions. So what is on disk is
always the state of one moment, and a kill -9 in the middle leaves the snapshot before.

Tables (`PRAGMA user_version` 1):
  segment    number, crc32 of the payload, payload (msgpack: user ids, events a user, and the two
             float64 columns, little-endian)
  batch_key  key, when it was seen, what its batch counted
  quarantine segments whose bytes are not what was written: kept for a person to look at
"""

import contextlib
import fcntl
import zlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import aiosqlite
import msgspec
import numpy as np
from numpy.typing import NDArray

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.errors import StorageError
from state_service.segment import Segment

SCHEMA_VERSION = 1
_SCHEMA = f"""
CREATE TABLE segment (number INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE batch_key (
  key TEXT PRIMARY KEY, seen_at REAL NOT NULL,
  accepted INTEGER NOT NULL, late INTEGER NOT NULL, future INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX batch_key_seen_at ON batch_key (seen_at);
CREATE TABLE quarantine (number INTEGER, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
"""


class _Payload(msgspec.Struct, array_like=True):
    user_ids: list[str]
    counts: bytes  # <i8 [users]
    timestamps: bytes  # <f8 [events]
    scores: bytes  # <f8 [events]


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as it comes back from disk: without slots, which live only in a process."""

    number: int
    user_ids: list[str]
    counts: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    scores: NDArray[np.float64]


def encode_segment(segment: Segment, user_ids: list[str]) -> bytes:
    """Return a segment's self-contained payload; `user_ids` in the order of its runs."""
    return msgspec.msgpack.encode(
        _Payload(
            user_ids,
            segment.counts.astype("<i8").tobytes(),
            segment.timestamps.astype("<f8").tobytes(),
            segment.scores.astype("<f8").tobytes(),
        )
    )


class DamagedSegmentError(Exception):
    """A segment's bytes on disk are not what was written."""


def decode_segment(number: int, payload: bytes, crc32: int) -> StoredSegment:
    """Return the segment; raises `DamagedSegmentError`."""
    if zlib.crc32(payload) != crc32:
        raise DamagedSegmentError(f"segment {number}: its checksum does not match")
    fields = msgspec.msgpack.decode(payload, type=_Payload)
    return StoredSegment(
        number,
        fields.user_ids,
        np.frombuffer(fields.counts, "<i8").astype(np.int64),
        np.frombuffer(fields.timestamps, "<f8").astype(np.float64),
        np.frombuffer(fields.scores, "<f8").astype(np.float64),
    )


class SnapshotStore:
    """The database file. One writer; every call is one transaction."""

    def __init__(
        self, path: Path, connection: aiosqlite.Connection, stored: set[int], lock: IO[bytes]
    ) -> None:
        self._path = path
        self._lock = lock
        self._connection = connection
        self._stored = stored  # numbers of the segments on disk

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create the database. Raises `StorageError` saying what to do."""
        lock = _lock(path)
        try:
            # A file that cannot be opened says why here; aiosqlite's thread would say it twice.
            with path.open("ab"):
                pass
            connection = await aiosqlite.connect(path, isolation_level=None)
        except (OSError, aiosqlite.Error) as error:
            lock.close()
            raise StorageError(f"cannot open {path}: {error} (setting: database)") from error
        try:
            await _prepare(connection)
            async with connection.execute("SELECT number FROM segment") as rows:
                stored = {number async for (number,) in rows}
        except (aiosqlite.Error, StorageError) as error:
            lock.close()
            await connection.close()
            raise StorageError(
                f"{path} cannot be used: {error}; move it away or name another file "
                "(setting: database)"
            ) from error
        return cls(path, connection, stored, lock)

    @property
    def stored_numbers(self) -> list[int]:
        """Numbers of the segments on disk, oldest first."""
        return sorted(self._stored)

    def size_bytes(self) -> int:
        """Bytes on disk, write-ahead log included."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def load_segment(self, number: int) -> StoredSegment:
        """Read one segment back. Raises `DamagedSegmentError`."""
        query = "SELECT payload, crc32 FROM segment WHERE number = ?"
        async with self._connection.execute(query, (number,)) as rows:
            row = await rows.fetchone()
        assert row is not None
        return decode_segment(number, *row)

    async def quarantine(self, number: int) -> None:
        """Put a damaged segment aside, where it is neither read nor deleted again."""
        move = "INSERT INTO quarantine SELECT * FROM segment WHERE number = ?"
        async with self._transaction():
            await self._connection.execute(move, (number,))
            await self._connection.execute("DELETE FROM segment WHERE number = ?", (number,))
        self._stored.discard(number)

    async def load_keys(self, horizon: float) -> list[SeenKey]:
        """Read back the batch keys seen at or after `horizon`, oldest first."""
        query = "SELECT * FROM batch_key WHERE seen_at >= ? ORDER BY seen_at"
        async with self._connection.execute(query, (horizon,)) as rows:
            return [
                SeenKey(key, seen_at, BatchCounts(*counts)) async for key, seen_at, *counts in rows
            ]

    async def write(
        self,
        new_segments: Sequence[tuple[int, bytes]],
        live_numbers: Collection[int],
        new_keys: Sequence[SeenKey],
        keys_horizon: float,
    ) -> None:
        """Write one snapshot: all of it or nothing. Raises `aiosqlite.Error`."""
        if not self._path.exists():  # SQLite would go on writing into the deleted file
            raise aiosqlite.OperationalError(f"{self._path} has been deleted; restart the service")
        gone = self._stored.difference(live_numbers)
        rows = [(number, zlib.crc32(payload), payload) for number, payload in new_segments]
        execute, executemany = self._connection.execute, self._connection.executemany
        async with self._transaction():
            await executemany("INSERT OR REPLACE INTO segment VALUES (?, ?, ?)", rows)
            await executemany("DELETE FROM segment WHERE number = ?", [(n,) for n in gone])
            await executemany(
                "INSERT OR REPLACE INTO batch_key VALUES (?, ?, ?, ?, ?)",
                [(seen.key, seen.seen_at, *seen.counts) for seen in new_keys],
            )
            await execute("DELETE FROM batch_key WHERE seen_at < ?", (keys_horizon,))
        self._stored = (self._stored - gone) | {number for number, _ in new_segments}

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Do all of the block or nothing."""
        await self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            await self._connection.execute("COMMIT")
        except BaseException:
            await self._connection.rollback()
            raise

    async def close(self) -> None:
        """Close the database, folding the write-ahead log in."""
        await self._connection.close()
        self._lock.close()


def _lock(path: Path) -> IO[bytes]:
    """Hold the file's lock until closed: two services would overwrite each other's segments.

    The lock dies with its process, so a kill leaves nothing to clean up.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error} (setting: database)") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StorageError(
            f"{path} is in use by another state service: stop it or name another file "
            "(setting: database)"
        ) from error
    return lock


async def _prepare(connection: aiosqlite.Connection) -> None:
    """Make an empty file ours; refuse, before anything is written, one that is not."""
    version = await _scalar(connection, "PRAGMA user_version")
    if version not in (0, SCHEMA_VERSION):
        raise StorageError(f"it has schema version {version}, this program reads {SCHEMA_VERSION}")
    if version == 0 and await _scalar(connection, "SELECT count(*) FROM sqlite_master"):
        raise StorageError("it is another program's database")
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        await connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")


async def _scalar(connection: aiosqlite.Connection, query: str) -> int:
    async with connection.execute(query) as rows:
        row = await rows.fetchone()
    return int(row[0]) if row else 0
