"""The database's tables, and what makes a file one of this version or not.

`PRAGMA user_version` says which version a file has. A newer version is refused in a sentence. So is
a table or a column whose name has changed, which SQLite itself does not mind: the tables'
definitions are compared with those of this version.

Why a block carries a shield: `PRAGMA secure_delete` overwrites a row that is deleted, but SQLite
moves rows between the pages of a table, and of such a row an older copy may stay behind in a page's
unused part. Only what lies in the tree's own pages is moved. A row's first 4 KiB at most lie there,
the rest in pages of its own, which are overwritten whole: so each block begins with 4 KiB of zeros.
The journal's rows are too small and too many for that; `Journal.rewrite` writes the few that are
left anew.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Sequence

from state_service.errors import StorageError
from state_service.event_clock import ClockState

SCHEMA_VERSION = 4
PAGE_BYTES = 4_096  # of a file that this program creates
LOG_BYTES = 8 << 20  # what the write-ahead log is cut to; it is folded in at half of that
MOST_BLOCKS_GONE = 1_000
# What is counted up from here stays a number that SQLite can hold.
GREATEST_NUMBER = 1 << 62

TABLES = """
CREATE TABLE block (
  number INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, shield BLOB NOT NULL, payload BLOB NOT NULL
);
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
CREATE TABLE forgotten (user_hash BLOB PRIMARY KEY, forgotten_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE hash_key (key BLOB NOT NULL);
INSERT INTO hash_key VALUES (randomblob(32));
"""
# Beside the tables of the version: files without it lose nothing, and older programs pass over it.
EVENT_CLOCK = """
CREATE TABLE IF NOT EXISTS replay_clock (
  confirmed REAL NOT NULL, time REAL NOT NULL, second REAL NOT NULL,
  beyond INTEGER NOT NULL, settled INTEGER NOT NULL
);
"""
VERSION = f"PRAGMA user_version = {SCHEMA_VERSION};"
INCREMENTAL_VACUUM = "PRAGMA auto_vacuum = INCREMENTAL"  # before a new file's tables, or a VACUUM
INSERT_BLOCK = "INSERT INTO block VALUES (?, ?, zeroblob(4096), ?)"  # a shield of PAGE_BYTES

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


def require_event_clock(rows: Sequence[Sequence[object]]) -> ClockState | None:
    """Return what the table `replay_clock` holds, None for nothing. Raises `StorageError`."""
    match rows:
        case []:
            return None
        case [
            (
                float() as confirmed,
                float() as time,
                float() as second,
                int() as beyond,
                int() as settled,
            )
        ]:
            return ClockState(confirmed, time, second, beyond, bool(settled))
    raise StorageError("the table replay_clock holds not one row of three times and two numbers")


def require_hash_key(rows: Sequence[Sequence[object]]) -> bytes:
    """Return the key that the table `hash_key` holds. Raises `StorageError`."""
    match rows:
        case [(bytes(key),)] if len(key) == 32:
            return key
    raise StorageError("the table hash_key holds not one key of 32 bytes")


def require_tables(rows: Iterable[tuple[str, str]]) -> None:
    """Raise `StorageError` unless the rows of `TABLES_QUERY` define this version's tables.

    Others beside them do no harm.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(TABLES)
        expected = _definitions(fresh.execute(TABLES_QUERY))
    found = _definitions(rows)
    if wrong := sorted(name for name in expected if found.get(name) != expected[name]):
        raise StorageError(f"its tables are not those of version {SCHEMA_VERSION}: {wrong[0]}")


def _definitions(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each table's definition in words: quotes, which renaming adds, and spaces are none."""
    return {name: re.findall(r"\w+|[^\w\s]", sql.replace('"', "")) for name, sql in rows}
