"""The database's tables, and how a file of an older version becomes one of this version.

`PRAGMA user_version` says which version a file has. Version 1 is what the first release wrote: a
row per segment and a row per batch key, no journal. It is migrated when the service opens it, in
one transaction: a kill on the way leaves the old file. A newer version is refused in a sentence.

So is a file whose pages are broken: SQLite does not look at all of a page when it reads from it,
and goes on with rows in the wrong order, or NULL where there was a number. Looking at every page
costs 0.4 s a GiB, which is read at the start anyway. Neither does it mind a table or a column
whose name has changed, so the tables' definitions are compared with those of this version.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Sequence

import aiosqlite

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.errors import StorageError
from state_service.formats import BLOCK_ROWS, checksum, encode_keys

SCHEMA_VERSION = 2
MOST_BLOCKS_GONE = 1_000
# What is counted up from here stays a number that SQLite can hold.
GREATEST_NUMBER = 1 << 62

_TABLES = """
CREATE TABLE segment (
  number INTEGER PRIMARY KEY, first_block INTEGER NOT NULL, blocks INTEGER NOT NULL
);
CREATE TABLE key_set (
  first_block INTEGER PRIMARY KEY, blocks INTEGER NOT NULL, newest_seen_at REAL NOT NULL
);
CREATE TABLE journal (
  sequence INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE covered (sequence INTEGER NOT NULL);
INSERT INTO covered VALUES (0);
CREATE TABLE quarantine (
  record TEXT NOT NULL, number INTEGER NOT NULL, crc32 INTEGER NOT NULL, payload BLOB NOT NULL
);
"""
_BLOCK = """
CREATE TABLE block (number INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
"""
# Version 1 kept a segment in one row whose payload is what a block holds today.
_BLOCKS_OF_VERSION_1 = """
ALTER TABLE segment RENAME TO block;
ALTER TABLE quarantine RENAME TO quarantine_1;
"""
_CONTENT_OF_VERSION_1 = """
INSERT INTO segment SELECT number, number, 1 FROM block;
INSERT INTO quarantine SELECT 'block', number, crc32, payload FROM quarantine_1;
DROP TABLE quarantine_1;
"""
_DROP_KEYS_OF_VERSION_1 = "DROP TABLE batch_key;"
_VERSION = f"PRAGMA user_version = {SCHEMA_VERSION};"

# What a broken file makes sqlite3 raise: it decodes names and messages, and they may be broken too.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)

TABLES_QUERY = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"


def require_known(version: int, tables: int) -> None:
    """Raise `StorageError` for a file that this program cannot read; 0 tables is a new file."""
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"it has schema version {version}, this program reads up to {SCHEMA_VERSION}"
        )
    if version == 0 and tables:
        raise StorageError("it is another program's database")


def require_blocks(first_block: object, blocks: object, known_blocks: int) -> range:
    """Return the numbers that a row of the catalogue names. Raises `StorageError`.

    No checksum covers that row. `known_blocks` are in the file or in quarantine: a few more may be
    gone, but a number much beyond is itself wrong, and too many to be looked for.
    """
    if not (isinstance(first_block, int) and isinstance(blocks, int)):
        raise StorageError(f"its blocks are {first_block!r} and {blocks!r}, not two numbers")
    if not (1 <= first_block <= GREATEST_NUMBER and 1 <= blocks <= known_blocks + MOST_BLOCKS_GONE):
        raise StorageError(f"it names {blocks} blocks from {first_block} on; {known_blocks} exist")
    return range(first_block, first_block + blocks)


def require_covered(rows: Sequence[Sequence[object]]) -> int:
    """Return the number that the table `covered` holds. Raises `StorageError`."""
    if len(rows) != 1:  # without it, rows that are in a snapshot would count again
        raise StorageError(f"the table covered has {len(rows)} rows, not 1")
    ((sequence,),) = rows
    if not isinstance(sequence, int):
        raise StorageError(f"the table covered holds {sequence!r}, not a number")
    if sequence > GREATEST_NUMBER:
        raise StorageError(f"the table covered holds {sequence}, too great a number")
    return sequence


def require_tables(rows: Iterable[tuple[str, str]]) -> None:
    """Raise `StorageError` unless the rows of `TABLES_QUERY` define this version's tables.

    Others beside them do no harm.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(_BLOCK + _TABLES)
        expected = _definitions(fresh.execute(TABLES_QUERY))
    found = _definitions(rows)
    if wrong := sorted(name for name in expected if found.get(name) != expected[name]):
        raise StorageError(f"its tables are not those of version {SCHEMA_VERSION}: {wrong[0]}")


def _definitions(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each table's definition in words: quotes, which renaming adds, and spaces are none."""
    return {name: re.findall(r"\w+|[^\w\s]", sql.replace('"', "")) for name, sql in rows}


async def prepare(connection: aiosqlite.Connection, synchronous: str) -> None:
    """Make a new file ours or migrate an old one; refuse, before writing, all others.

    `synchronous` is SQLite's word for when it waits for the disk: NORMAL or FULL.
    """
    version = await _scalar(connection, "PRAGMA user_version")
    require_known(version, await _scalar(connection, "SELECT count(*) FROM sqlite_master"))
    ((found,),) = await connection.execute_fetchall("PRAGMA quick_check(1)")
    if found != "ok":
        raise StorageError(f"it is damaged: {' '.join(found.split())}")
    if version == SCHEMA_VERSION:
        await _require_tables(connection)
    await connection.execute_fetchall("PRAGMA journal_mode = WAL")
    await connection.execute_fetchall(f"PRAGMA synchronous = {synchronous}")
    if version == 0:
        await connection.executescript(f"BEGIN;{_BLOCK}{_TABLES}{_VERSION}COMMIT;")
    elif version == 1:
        await _migrate_from_1(connection)


async def _migrate_from_1(connection: aiosqlite.Connection) -> None:
    await connection.execute_fetchall("BEGIN IMMEDIATE")
    try:
        for statement in _statements(_BLOCKS_OF_VERSION_1, _TABLES, _CONTENT_OF_VERSION_1):
            await connection.execute_fetchall(statement)
        await _move_keys_of_version_1(connection)
        for statement in _statements(_DROP_KEYS_OF_VERSION_1, _VERSION):
            await connection.execute_fetchall(statement)
        await _require_tables(connection)
        await connection.execute_fetchall("COMMIT")
    except BaseException:
        await connection.rollback()
        raise


async def _move_keys_of_version_1(connection: aiosqlite.Connection) -> None:
    number = await _scalar(
        connection,
        "SELECT max(n) FROM (SELECT max(number) AS n FROM block UNION ALL "
        "SELECT max(number) FROM quarantine)",
    )
    query = "SELECT key, seen_at, accepted, late, future FROM batch_key ORDER BY seen_at"
    async with connection.execute(query) as rows:
        while some := list(await rows.fetchmany(BLOCK_ROWS)):
            number += 1
            seen = [SeenKey(key, seen_at, BatchCounts(*counts)) for key, seen_at, *counts in some]
            payload = encode_keys(seen)
            await connection.execute_fetchall(
                "INSERT INTO block VALUES (?, ?, ?)", (number, checksum(payload), payload)
            )
            await connection.execute_fetchall(
                "INSERT INTO key_set VALUES (?, 1, ?)", (number, seen[-1].seen_at)
            )


def _statements(*scripts: str) -> list[str]:
    """Cut scripts up: SQLite's own `executescript` would end the transaction."""
    parts = [part.strip() for script in scripts for part in script.split(";")]
    return [part for part in parts if part]


async def _require_tables(connection: aiosqlite.Connection) -> None:
    rows = await connection.execute_fetchall(TABLES_QUERY)
    require_tables((name, sql) for name, sql in rows)


async def _scalar(connection: aiosqlite.Connection, query: str) -> int:
    rows = list(await connection.execute_fetchall(query))
    return int(rows[0][0] or 0)
