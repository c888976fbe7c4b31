"""Reading a database without the service: `check`, `dump` and `backup` of the command line.

The file is opened read-only and what is seen is the state of one moment, also while a service goes
on writing it. Whoever reads keeps the write-ahead log from being emptied, and it grows meanwhile.
So a file that is in use is copied first, as fast as the disk can, and the copy is read: a pager
that waits at the end of a dump holds nobody up.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from state_service.errors import StorageError
from state_service.formats import (
    DamagedError,
    Group,
    StoredSegment,
    decode_group,
    decode_keys,
    decode_segment_block,
)
from state_service.schema import (
    SCHEMA_VERSION,
    TABLES_QUERY,
    UNREADABLE,
    require_blocks,
    require_covered,
    require_hash_key,
    require_known,
    require_tables,
)
from state_service.scratch import scratch_beside


class Content(NamedTuple):
    """What a database holds: counts, and a sentence for each problem found."""

    events: int
    keys: int
    segments: int
    journal_rows: int
    quarantined: int
    problems: list[str]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database of this version, as it is now, for reading; nobody is held up by it.

    Raises `StorageError` saying what is wrong.
    """
    with _reading(path) as (connection, live):
        if not live:
            yield connection
            return
        copy = _copied(connection, path)
    with contextlib.closing(copy):
        yield copy


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """Open the file itself, and tell whether a service may be writing it."""
    if not path.is_file():
        raise StorageError(f"{path}: there is no such file")
    path = path.resolve()  # the log is beside the file, not beside a link to it
    # Without a write-ahead log nobody has it open: read it as it lies, and create no files beside.
    live = path.with_name(path.name + "-wal").exists()
    address = f"{path.as_uri()}?mode=ro{'' if live else '&immutable=1'}"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}") from error
    with contextlib.closing(connection):
        try:
            _require_version(connection)
        except (*UNREADABLE, StorageError) as error:
            raise StorageError(f"{path}: {error}") from error
        yield connection, live


def _copied(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return a copy without a name, gone when it is closed. Raises `StorageError`."""
    copy = sqlite3.connect("", isolation_level=None)
    try:
        copy.execute(scratch_beside(path.resolve()))
        connection.backup(copy)  # in one transaction
    except BaseException as error:
        copy.close()
        if isinstance(error, sqlite3.Error):
            raise StorageError(f"{path}: it cannot be copied to be read: {error}") from error
        raise
    return copy


def _require_version(connection: sqlite3.Connection) -> None:
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    require_known(version, tables)
    if version == 0:
        raise StorageError("it is empty")
    if version < SCHEMA_VERSION:
        raise StorageError(
            f"it has schema version {version}: start the service once to bring it up to "
            f"{SCHEMA_VERSION}"
        )
    require_tables(connection.execute(TABLES_QUERY))


def inspect(path: Path) -> Content:
    """Verify every page, checksum, record and invariant. Raises `StorageError` when it cannot."""
    with opened(path) as connection:
        try:
            return _Inspector(connection).inspect()
        except UNREADABLE as error:
            raise StorageError(f"{path}: {error}") from error


class _Inspector:
    """Reads one database through and collects what is wrong with it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._query = connection.execute
        self._problems: list[str] = []
        self._owner_of: dict[int, str] = {}  # by block
        self._aside = set(self._query("SELECT record, number FROM quarantine"))
        ((blocks,),) = self._query("SELECT count(*) FROM block")
        self._known_blocks = blocks + len(self._aside)

    def inspect(self) -> Content:
        found = self._query("PRAGMA integrity_check").fetchall()
        self._problems += [f"the file: {text}" for (text,) in found if text != "ok"]
        events, segments = self._segments()
        keys = self._key_sets()
        self._hash_key()
        journal_rows, more_events, more_keys = self._journal()
        return Content(
            events=events + more_events,
            keys=keys + more_keys,
            segments=segments,
            journal_rows=journal_rows,
            quarantined=len(self._aside),
            problems=self._problems,
        )

    def _segments(self) -> tuple[int, int]:
        events = segments = 0
        for number, first, blocks in self._query(
            "SELECT number, first_block, blocks FROM segment ORDER BY number"
        ):
            segments += 1
            name = f"segment {number}"
            for block, row in self._blocks(name, first, blocks):
                try:
                    events += len(decode_segment_block(*row).scores)
                except DamagedError as error:
                    self._problems.append(f"{name}, block {block}: {error}")
        return events, segments

    def _hash_key(self) -> None:
        try:
            require_hash_key(self._query("SELECT key FROM hash_key").fetchall())
        except StorageError as error:
            self._problems.append(str(error))

    def _key_sets(self) -> int:
        keys = 0
        for first, blocks, newest_seen_at in self._query(
            "SELECT first_block, blocks, newest_seen_at FROM key_set"
        ):
            name = f"key set {first}"
            for block, row in self._blocks(name, first, blocks):
                try:
                    seen = decode_keys(*row)
                except DamagedError as error:
                    self._problems.append(f"{name}, block {block}: {error}")
                    continue
                keys += len(seen)
                if not isinstance(newest_seen_at, float | int):
                    self._problems.append(f"{name}: the catalogue has no time for it")
                elif max(item.seen_at for item in seen) > newest_seen_at:
                    self._problems.append(f"{name}: a key is newer than the catalogue says")
        return keys

    def _blocks(
        self, name: str, first_block: object, blocks: object
    ) -> Iterator[tuple[int, tuple[bytes, int]]]:
        """Yield a range of blocks; note those that are missing, or somebody else's too."""
        try:
            named = require_blocks(first_block, blocks, self._known_blocks)
        except StorageError as error:
            self._problems.append(f"{name}: {error}")
            return
        for block in named:
            if self._owner_of.setdefault(block, name) != name:
                self._problems.append(
                    f"{name}, block {block}: it is in {self._owner_of[block]} as well"
                )
            row = self._query(
                "SELECT CAST(payload AS BLOB), crc32 FROM block WHERE number = ?", (block,)
            ).fetchone()
            if row is not None:
                yield block, row
            elif ("block", block) not in self._aside:
                self._problems.append(f"{name}, block {block}: it is gone")

    def _journal(self) -> tuple[int, int, int]:
        rows = events = keys = 0
        covered = 0
        try:
            covered = require_covered(self._query("SELECT sequence FROM covered").fetchall())
        except StorageError as error:
            self._problems.append(str(error))
        expected = covered + 1
        for sequence, group, problem in _uncovered(self._query):
            rows += 1
            while ("journal", expected) in self._aside:
                expected += 1
            if sequence > expected:
                self._problems.append(f"journal row {expected}: it is gone, later ones are there")
            expected = sequence + 1
            if group is None:
                self._problems.append(f"journal row {sequence}: {problem}")
            else:
                events += len(group.user_ids)
                keys += len(group.keys)
        return rows, events, keys


def _uncovered(
    execute: Callable[[str], Iterable[Any]],
) -> Iterator[tuple[int, Group | None, str]]:
    query = (
        "SELECT sequence, CAST(payload AS BLOB), crc32 FROM journal "
        "WHERE sequence > coalesce((SELECT max(sequence) FROM covered), 0) ORDER BY sequence"
    )
    for sequence, payload, crc32 in execute(query):
        try:
            yield sequence, decode_group(payload, crc32), ""
        except DamagedError as error:
            yield sequence, None, str(error)


_GONE = """
SELECT number, blocks
  - (SELECT count(*) FROM block
     WHERE number BETWEEN first_block AND first_block + blocks - 1)
  - (SELECT count(DISTINCT number) FROM quarantine
     WHERE record = 'block' AND number BETWEEN first_block AND first_block + blocks - 1)
FROM segment
"""


def stored_events(path: Path, problems: list[str]) -> Iterator[tuple[list[str], Any, Any]]:
    """Yield (user ids, timestamps, scores) of what is held, an entry an event, piece by piece.

    Damaged pieces are left out and named in `problems`. Raises `StorageError`.
    """
    with opened(path) as connection:
        try:
            query = (
                "SELECT block.number, CAST(payload AS BLOB), crc32 FROM segment "
                "JOIN block ON block.number BETWEEN first_block AND first_block + blocks - 1 "
                "ORDER BY segment.number, block.number"
            )
            for block, payload, crc32 in connection.execute(query):
                try:
                    stored = decode_segment_block(payload, crc32)
                except DamagedError as error:
                    problems.append(f"block {block}: {error}")
                    continue
                yield _owners(stored), stored.timestamps, stored.scores
            problems += [
                f"segment {number}: {gone} of its blocks are gone"
                for number, gone in connection.execute(_GONE)
                if gone
            ]
            for sequence, group, problem in _uncovered(connection.execute):
                if group is None:
                    problems.append(f"journal row {sequence}: {problem}")
                else:
                    yield group.user_ids, group.timestamps, group.scores
        except UNREADABLE as error:
            raise StorageError(f"{path}: {error}") from error


def _owners(stored: StoredSegment) -> list[str]:
    runs = zip(stored.user_ids, stored.counts.tolist(), strict=True)
    return [user_id for user_id, count in runs for _ in range(count)]


def back_up(path: Path, target: Path) -> int:
    """Copy the database, as it is at this moment, to a new file; return its size in bytes.

    Raises `StorageError`; a target that exists is left alone, one that cannot be finished removed.
    """
    with _reading(path) as (connection, _):
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StorageError(f"{target}: {error.strerror}") from error
        try:
            with contextlib.closing(sqlite3.connect(target)) as copy:
                connection.backup(copy)  # in one transaction
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise StorageError(f"{target}: {error}") from error
            raise
    return target.stat().st_size
