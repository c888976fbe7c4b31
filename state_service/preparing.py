"""A file becomes ours: created, migrated, or refused before anything is written to it.

Version 1 is what the first release wrote: a row per segment and a row per batch key, no journal.
Version 2 brought blocks and the journal, but deleted rows stayed readable in the file's unused
parts. Version 3 overwrote them, but never gave their room back to the disk. A file is migrated when
the service opens it, each step in one transaction: a kill on the way leaves an older version's.

A file whose pages are broken is refused: SQLite does not look at all of a page when it reads from
it, and goes on with rows in the wrong order, or NULL where there was a number. Looking at every
page costs 0.4 s a GiB, which is read at the start anyway.
"""

from pathlib import Path

import aiosqlite

from state_service.batch_keys import BatchCounts, SeenKey
from state_service.errors import StorageError
from state_service.formats import BLOCK_ROWS, checksum, encode_keys
from state_service.schema import (
    EVENT_CLOCK,
    INCREMENTAL_VACUUM,
    LOG_BYTES,
    PAGE_BYTES,
    SCHEMA_VERSION,
    TABLES,
    TABLES_QUERY,
    VERSION,
    require_known,
    require_tables,
)
from state_service.scratch import scratch_beside

_TABLES_OF_VERSION_2 = """
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
_DROP_KEYS_OF_VERSION_1 = "DROP TABLE batch_key; PRAGMA user_version = 2;"

_NAMES_OF_VERSION_2 = ("block", "segment", "key_set", "journal", "covered", "quarantine")
# What is unused in the file is filled, and emptied again: from then on secure_delete sees to it.
_FILL_GAPS = """
CREATE TABLE filling (zeros BLOB);
WITH RECURSIVE part (n) AS (
  SELECT 0 UNION ALL SELECT n + 1 FROM part WHERE n < (SELECT {pages} / 1000)
)
INSERT INTO filling SELECT zeroblob(1000 * {page_bytes}) FROM part;
DROP TABLE filling;
"""
_CONTENT_OF_VERSION_2 = """
INSERT INTO block SELECT number, crc32, zeroblob(4096), payload FROM block_2;
INSERT INTO segment SELECT * FROM segment_2;
INSERT INTO key_set SELECT * FROM key_set_2;
INSERT INTO journal SELECT * FROM journal_2;
DELETE FROM covered;
INSERT INTO covered SELECT * FROM covered_2;
INSERT INTO quarantine SELECT * FROM quarantine_2;
"""


async def prepare(connection: aiosqlite.Connection, path: Path, synchronous: str) -> None:
    """Make a new file ours or migrate an old one; refuse, before writing, all others.

    `path` is the file's. `synchronous` is SQLite's word for when it waits for the disk: NORMAL or
    FULL.
    """
    version = await _scalar(connection, "PRAGMA user_version")
    require_known(version, await _scalar(connection, "SELECT count(*) FROM sqlite_master"))
    ((found,),) = await connection.execute_fetchall("PRAGMA quick_check(1)")
    if found != "ok":
        raise StorageError(f"it is damaged: {' '.join(found.split())}")
    if version in (3, SCHEMA_VERSION):  # they differ in the file's form alone
        await _require_tables(connection)
    # Of no use for a file that exists; for a new one they must come before anything is written.
    await connection.execute_fetchall(f"PRAGMA page_size = {PAGE_BYTES}")
    await connection.execute_fetchall(INCREMENTAL_VACUUM)
    await connection.execute_fetchall("PRAGMA secure_delete = ON")
    await connection.execute_fetchall("PRAGMA journal_mode = WAL")
    await connection.execute_fetchall(f"PRAGMA synchronous = {synchronous}")
    await connection.execute_fetchall(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    if version == 0:
        await connection.executescript(f"BEGIN;{TABLES}{VERSION}COMMIT;")
    if version == 1:
        await _migrate_from_1(connection)
    if version in (1, 2):
        await _migrate_from_2(connection)
    if version in (1, 2, 3):
        await _migrate_from_3(connection, path)
    await connection.executescript(EVENT_CLOCK)


async def _migrate_from_1(connection: aiosqlite.Connection) -> None:
    await connection.execute_fetchall("BEGIN IMMEDIATE")
    try:
        await _run(connection, _BLOCKS_OF_VERSION_1, _TABLES_OF_VERSION_2, _CONTENT_OF_VERSION_1)
        await _move_keys_of_version_1(connection)
        await _run(connection, _DROP_KEYS_OF_VERSION_1, "COMMIT")
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


async def _migrate_from_2(connection: aiosqlite.Connection) -> None:
    """Write all rows into new tables: of the old ones and of what was unused nothing is left."""
    pages = await _scalar(connection, "PRAGMA freelist_count")
    page_bytes = await _scalar(connection, "PRAGMA page_size")
    fill_gaps = _FILL_GAPS.format(pages=pages, page_bytes=page_bytes)
    rename = [f"ALTER TABLE {name} RENAME TO {name}_2" for name in _NAMES_OF_VERSION_2]
    drop = [f"DROP TABLE {name}_2" for name in _NAMES_OF_VERSION_2]
    await connection.execute_fetchall("BEGIN IMMEDIATE")
    try:
        await _run(connection, fill_gaps, *rename, TABLES, _CONTENT_OF_VERSION_2, *drop)
        await _run(connection, "PRAGMA user_version = 3")
        await _require_tables(connection)
        await connection.execute_fetchall("COMMIT")
    except BaseException:
        await connection.rollback()
        raise


async def _migrate_from_3(connection: aiosqlite.Connection, path: Path) -> None:
    """Write the file anew, once, in a form that can give pages back; its tables stay as they are.

    A kill between the two steps leaves a file of version 3, which is written once more.
    """
    await connection.execute_fetchall(scratch_beside(path))
    await connection.execute_fetchall(INCREMENTAL_VACUUM)
    await connection.execute_fetchall("VACUUM")
    await connection.executescript(VERSION)


async def _run(connection: aiosqlite.Connection, *scripts: str) -> None:
    """Run scripts inside a transaction, which SQLite's own `executescript` would end."""
    for script in scripts:
        for statement in filter(None, map(str.strip, script.split(";"))):
            await connection.execute_fetchall(statement)


async def _require_tables(connection: aiosqlite.Connection) -> None:
    rows = await connection.execute_fetchall(TABLES_QUERY)
    require_tables((name, sql) for name, sql in rows)


async def _scalar(connection: aiosqlite.Connection, query: str) -> int:
    rows = list(await connection.execute_fetchall(query))
    return int(rows[0][0] or 0)
