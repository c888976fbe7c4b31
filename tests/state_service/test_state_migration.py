"""A file that the first release wrote is taken over; nothing of it changes but its form."""

import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from state_service.errors import StorageError
from state_service.schema import SCHEMA_VERSION
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
