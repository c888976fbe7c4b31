"""A file that an earlier release wrote is taken over; nothing of it changes but its form."""

import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from state_service.errors import StorageError
from state_service.inspection import inspect
from state_service.schema import SCHEMA_VERSION, TABLES
from state_service.store import Store
from tests.state_service.state_support import batch, serving

# As the first release created it.
VERSION_1 = """
CREATE TABLE segment (number INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE batch_key (
  key TEXT PRIMARY KEY, seen_at REAL NOT NULL,
  accepted INTEGER NOT NULL, late INTEGER NOT NULL, future INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX batch_key_seen_at ON batch_key (seen_at);
CREATE TABLE quarantine (number INTEGER, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
RUNS = {
    3: {"bob": [0.1, 0.2, 0.3], "ann": [-1e300, 5e-324]},
    7: {"ann": [1e300], "cid": [-0.0, 0.0]},
}


def _write_version_1(path: Path, now: float) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(VERSION_1)
        for number, runs in RUNS.items():
            scores = [score for run in runs.values() for score in run]
            payload = msgspec.msgpack.encode(
                [
                    list(runs),
                    np.array([len(run) for run in runs.values()], "<i8").tobytes(),
                    np.full(len(scores), now - number, "<f8").tobytes(),
                    np.array(scores, "<f8").tobytes(),
                ]
            )
            row = (number, zlib.crc32(payload), payload)
            database.execute("INSERT INTO segment VALUES (?, ?, ?)", row)
        database.execute("INSERT INTO segment VALUES (8, 1, x'00')")  # damaged
        database.execute("INSERT INTO quarantine VALUES (5, 2, x'01')")
        keys = [("new", now, 5, 1, 2), ("old", now - 100, 3, 0, 0)]
        database.executemany("INSERT INTO batch_key VALUES (?, ?, ?, ?, ?)", keys)


async def test_a_file_of_version_1_gives_the_same_answers(tmp_path: Path) -> None:
    now = time.time()
    _write_version_1(tmp_path / "state.db", now)
    for start in range(2):
        async with serving(tmp_path) as server:
            server.service.windows.check()
            users = {"ann": 5e-324, "bob": 0.2, "cid": 0.0}
            items = (await server.post("/medians", {"user_ids": list(users)}))["items"]
            assert {item["user_id"]: item["median"] for item in items} == users
            assert [item["count"] for item in items] == [3, 3, 2]
            assert items[0]["newest_timestamp"] == now - 3
            restored = (await server.get("/stats"))["restore"]
            assert (restored["events"], restored["damaged_blocks"]) == (8, start == 0)
            known = await server.record(batch("new", ["x"], [1]), batch("old", ["x"], [1]))
            assert known["batches"] == [
                {"accepted": 5, "late": 1, "future": 2, "duplicate": True},
                {"accepted": 3, "late": 0, "future": 0, "duplicate": True},
            ]
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        rows = database.execute("SELECT * FROM quarantine ORDER BY number").fetchall()
        assert rows == [("block", 5, 2, b"\x01"), ("block", 8, 1, b"\x00")]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_new_numbers_do_not_collide_with_old_ones(tmp_path: Path) -> None:
    _write_version_1(tmp_path / "state.db", time.time())
    for number in range(3):
        async with serving(tmp_path) as server:
            await server.record(batch(f"k{number}", ["ann"], [7.0]))
            assert await server.service.snapshot()
    async with serving(tmp_path) as server:
        assert (await server.get("/users/ann/median"))["count"] == 6
        assert (await server.get("/stats"))["batch_keys"] == 5


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    _write_version_1(path, time.time())
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE key_set (theirs)")  # in the way
        before = list(database.iterdump())
    with pytest.raises(StorageError, match="key_set already exists"):
        await Store.open(path)
    with closing(sqlite3.connect(path)) as database:
        assert list(database.iterdump()) == before
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


# As the releases with version 2 created it.
VERSION_2 = """
CREATE TABLE block (number INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL, payload BLOB NOT NULL);
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
CREATE TABLE quarantine (
  record TEXT NOT NULL, number INTEGER NOT NULL, crc32 INTEGER NOT NULL, payload BLOB NOT NULL
);
PRAGMA user_version = 2;
PRAGMA journal_mode = WAL;
PRAGMA secure_delete = OFF;
"""
CARRIED = ("segment", "key_set", "covered", "journal", "quarantine")


async def _make_version_2(folder: Path) -> Path:
    """Return a file as a release with version 2 leaves it, with deleted rows in its gaps."""
    async with serving(folder / "new") as server:
        for number in range(5):
            await server.record(batch(f"k{number}", ["ann", "bob"] * 300, [0.5, 0.25] * 300))
            assert await server.service.snapshot()
        await server.record(batch("journalled", ["ann"], [7.0]))
        path = folder / "state.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript(VERSION_2)
            database.execute("ATTACH ? AS new", (str(folder / "new" / "state.db"),))
            database.execute("INSERT INTO block SELECT number, crc32, payload FROM new.block")
            for table in CARRIED:
                database.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")  # noqa: S608
            database.execute("INSERT INTO quarantine VALUES ('block', 99, 1, x'00')")
            for number in range(1000, 1100):
                row = (number, 1, b"what was deleted" * (1 + number % 7 * 100))
                database.execute("INSERT INTO block VALUES (?, ?, ?)", row)
            database.execute("DELETE FROM block WHERE number >= 1000")
    assert b"what was deleted" in path.read_bytes()
    return path


async def test_a_file_of_version_2_gives_the_same_answers_and_loses_what_was_deleted(
    tmp_path: Path,
) -> None:
    path = await _make_version_2(tmp_path)
    for _ in range(2):
        async with serving(tmp_path) as server:
            server.service.windows.check()
            items = (await server.post("/medians", {"user_ids": ["ann", "bob"]}))["items"]
            assert [item["count"] for item in items] == [1501, 1500]
            assert [item["median"] for item in items] == [0.5, 0.25]
            assert (await server.record(batch("journalled", ["x"], [1])))["duplicates"] == 1
            assert server.service.restored.damaged_blocks == 0
        assert b"what was deleted" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert database.execute("SELECT * FROM quarantine").fetchall() == [
            ("block", 99, 1, b"\x00")
        ]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_migration_from_version_2_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    path = await _make_version_2(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE hash_key (theirs)")  # in the way
        before = list(database.iterdump())
    with pytest.raises(StorageError, match="hash_key already exists"):
        await Store.open(path)
    with closing(sqlite3.connect(path)) as database:
        assert list(database.iterdump()) == before
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


async def _make_version_3(folder: Path) -> Path:
    """Return a file as a release with version 3 leaves it: of what was deleted, the pages stay."""
    path = folder / "state.db"
    async with serving(folder / "new") as server:
        await server.record(batch("snapshotted", ["ann", "bob"], [0.5, 0.25]))
        assert await server.service.snapshot()
        await server.record(batch("journalled", ["ann"], [7.0]))
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.executescript(f"PRAGMA journal_mode = WAL; {TABLES} PRAGMA user_version = 3")
            database.execute("ATTACH ? AS new", (str(folder / "new" / "state.db"),))
            for table in ("block", "hash_key", *CARRIED):
                database.execute(f"DELETE FROM {table}")  # noqa: S608
                database.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")  # noqa: S608
            database.execute(
                "INSERT INTO forgotten VALUES (randomblob(16), ?)", (time.time() - 60,)
            )
            database.execute("INSERT INTO block VALUES (99, 1, x'', zeroblob(10000000))")
            database.execute("DELETE FROM block WHERE number = 99")
    assert path.stat().st_size > 10_000_000
    return path


async def test_a_file_of_version_3_gives_the_same_answers_and_can_become_smaller(
    tmp_path: Path,
) -> None:
    path = await _make_version_3(tmp_path)
    for _ in range(2):
        async with serving(tmp_path) as server:
            server.service.windows.check()
            items = (await server.post("/medians", {"user_ids": ["ann", "bob"]}))["items"]
            assert [item["count"] for item in items] == [2, 1]
            assert [item["median"] for item in items] == [3.75, 0.25]
            assert (await server.record(batch("journalled", ["x"], [1])))["duplicates"] == 1
            stats = await server.get("/stats")
            assert stats["tombstones"] == 1
            assert stats["restore"]["damaged_blocks"] == 0
        assert path.stat().st_size < 200_000
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert database.execute("PRAGMA auto_vacuum").fetchone() == (2,)  # incremental
    assert inspect(path).problems == []


async def test_a_kill_before_the_version_is_written_leaves_a_file_that_is_taken_over(
    tmp_path: Path,
) -> None:
    path = await _make_version_3(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL").close()
        database.execute("VACUUM")
    async with serving(tmp_path) as server:
        assert (await server.get("/users/ann/median"))["median"] == 3.75
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
