"""The file follows the window, its log stays short, and whoever reads it holds nobody up."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog

from state_service import log_watch
from state_service.inspection import inspect
from state_service.schema import LOG_BYTES
from state_service.wire import Batch
from tests.state_service.forgetting_support import files, forget, in_segments, traces
from tests.state_service.state_support import Server, batch, serving, spawn

MIB = 1 << 20
_EVENTS = 16_000


async def _burst(server: Server, name: str, megabytes: int) -> None:
    """Record so much in journal rows, a quarter of a megabyte each."""
    now = server.service.clock()
    times, scores = np.full(_EVENTS, now), np.linspace(0.0, 1.0, _EVENTS)
    for number in range(4 * megabytes):
        users = [f"user {index}" for index in range(number * 10, number * 10 + 10)]
        events = Batch(f"{name} {number}", users * (_EVENTS // 10), times, scores)
        await server.service.record([events])


@contextmanager
def _foreign_reader(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN").close()
        reader.execute("SELECT count(*) FROM journal").fetchone()
        yield reader


async def test_after_a_burst_the_file_follows_the_window(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with serving(tmp_path) as server:
        service = server.service
        await _burst(server, "burst", 24)
        assert await service.snapshot()
        server.set_clock(service.clock() + 1_000)
        await server.record(batch("new", ["bob"], [0.25], [service.clock()]))
        await service.store.fold_log()
        large = path.stat().st_size
        assert large > 20 * MIB
        assert await service.snapshot()
        assert path.stat().st_size < 5 * MIB
        assert (await server.get("/users/bob/median"))["median"] == 0.25
        assert (await server.record(batch("new", ["x"], [1])))["duplicates"] == 1
    assert inspect(path).problems == []


async def test_the_file_is_made_smaller_in_small_steps(tmp_path: Path) -> None:
    """A commit waits behind one of them, not behind all."""
    async with serving(tmp_path) as server:
        service = server.service
        await _burst(server, "burst", 8)
        assert await service.snapshot()
        server.set_clock(service.clock() + 1_000)
        assert await service.snapshot()
        commits_meanwhile = 0
        shrinking = asyncio.create_task(service.store.shrink(spare_pages=0))
        while not shrinking.done():
            await server.record(batch(f"m {commits_meanwhile}", ["u"], [1], [service.clock()]))
            commits_meanwhile += 1
        await shrinking
        assert commits_meanwhile >= 3


async def test_nothing_of_who_is_forgotten_is_left_in_what_was_moved_or_cut_off(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await _burst(server, "burst", 2)
        await in_segments(server)
        server.set_clock(server.service.clock() + 30)
        await _in_more_segments(server)
        await server.service.store.shrink(spare_pages=0)
        await forget(server)
        assert traces(tmp_path) == []
        await server.service.store.shrink(spare_pages=0)
        assert traces(tmp_path) == []
    assert traces(tmp_path) == []


async def _in_more_segments(server: Server) -> None:
    """Have segments merged, whose old blocks leave gaps before those of the user."""
    for number in range(8):
        await server.record(batch(f"again {number}", ["other"] * 500, [0.5] * 500))
        assert await server.service.snapshot()


async def test_a_dump_that_waits_for_its_reader_keeps_no_log_from_being_emptied(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state.db"
    async with serving(tmp_path) as server:
        await _burst(server, "burst", 2)
        process = await spawn("dump", str(path))
        assert process.stdout is not None
        first = await process.stdout.readline()  # from here on it waits, its pipe being full
        assert first.startswith(b'{"user_id":"user ')
        await server.record(batch("meanwhile", ["ann"], [0.5]))
        assert await server.service.store.try_to_fold_log()
        assert (await server.ask("DELETE", "/users/user%200")).status == 200
        rest, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, stderr) == (0, b"")
    assert rest.count(b"\n") + 1 == 8 * _EVENTS  # of the moment at which it began
    assert b'"ann"' not in rest
    assert {file.name for file in files(tmp_path)} == {"state.db", "state.db.lock"}


async def test_a_log_that_a_reader_holds_is_told_once_and_emptied_when_the_reader_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_watch, "_TOLD_AFTER_SECONDS", 0.0)
    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path) as server:
            service = server.service
            with _foreign_reader(tmp_path / "state.db"):
                await _burst(server, "held", 10)
                for _ in range(3):
                    await service.log_watch.look()
                wal = (await server.get("/stats"))["wal"]
                assert wal["bytes"] > LOG_BYTES
                assert wal["held_by"] == "another program reads the database"
                assert wal["held_seconds"] > 0
                page = (await server.ask("GET", "/overview")).text
                assert "log cannot be emptied" in page
                metrics = (await server.ask("GET", "/metrics")).text
                assert "\nmedianserve_wal_held_seconds 0.0\n" not in metrics
                await server.record(batch("still taken", ["ann"], [0.5]))
            await service.log_watch.look()
            wal = (await server.get("/stats"))["wal"]
            assert (wal["held_by"], wal["held_seconds"]) == (None, 0)
            assert wal["bytes"] <= LOG_BYTES
            assert "log cannot be emptied" not in (await server.ask("GET", "/overview")).text
    said = [entry["event"] for entry in logs if "write-ahead log" in entry["event"]]
    assert said == [
        "the write-ahead log grows and cannot be emptied",
        "the write-ahead log is emptied again",
    ]


async def test_a_held_log_is_not_made_longer_by_making_the_file_smaller(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        service = server.service
        await _burst(server, "burst", 12)
        assert await service.snapshot()
        await service.store.fold_log()
        with _foreign_reader(tmp_path / "state.db"):
            server.set_clock(service.clock() + 1_000)
            await _burst(server, "held", 10)
            before = service.store.log_bytes()
            await service.store.shrink(spare_pages=0)
            assert service.store.log_bytes() == before > LOG_BYTES
