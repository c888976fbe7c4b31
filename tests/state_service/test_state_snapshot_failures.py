"""When the disk is damaged, foreign or full: say so, lose nothing more, mend by itself."""

import asyncio
import resource
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import structlog

from state_service.errors import StorageError
from state_service.inspection import back_up
from state_service.service import StateService
from state_service.settings import Settings
from state_service.store import Store
from state_service.wire import Batch
from tests.state_service.state_support import Server, batch, launched, serving, spawn


def _run(folder: Path, script: str) -> None:
    with closing(sqlite3.connect(folder / "state.db")) as database:
        database.executescript(script)


def _flip_a_byte(folder: Path, number: int) -> None:
    with closing(sqlite3.connect(folder / "state.db", isolation_level=None)) as database:
        query = "SELECT payload FROM block WHERE number = ?"
        ((payload,),) = database.execute(query, (number,)).fetchall()
        middle = len(payload) // 2
        damaged = payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]
        database.execute("UPDATE block SET payload = ? WHERE number = ?", (damaged, number))


async def _record_and_snapshot(server: Server, key: str, user: str) -> None:
    await server.record(batch(key, [user], [0.5]))
    assert await server.service.snapshot()


async def test_a_damaged_segment_is_put_aside_and_the_rest_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for user in ("ann", "bob", "cid"):
            await _record_and_snapshot(server, user, user)
    _flip_a_byte(tmp_path, 3)  # a segment's and a set of keys' block alternate
    for damaged in (1, 0):  # once found, it is not found again
        async with serving(tmp_path) as server:
            restore = (await server.get("/stats"))["restore"]
            assert restore["damaged_blocks"] == damaged
            if damaged:  # after that, what was restored may have been merged, or not
                assert restore["segments_done"] == 3
            asked = await server.post("/medians", {"user_ids": ["ann", "bob", "cid"]})
            assert [item["median"] for item in asked["items"]] == [0.5, None, 0.5]
            # New segments go on being written and read.
            await _record_and_snapshot(server, f"new {damaged}", "new")
            await server.record(batch(f"clean up {damaged}", [], []))
        with closing(sqlite3.connect(tmp_path / "state.db")) as database:
            assert database.execute("SELECT number FROM quarantine").fetchall() == [(3,)]


async def test_a_damaged_journal_row_is_put_aside_and_the_rest_is_served(tmp_path: Path) -> None:
    async with launched(tmp_path, "--snapshot-interval-seconds", "3600") as process:
        for user in ("ann", "bob", "cid"):
            await process.record(batch(user, [user], [0.5]))
        await process.stop(signal.SIGKILL)
    _run(tmp_path, "UPDATE journal SET payload = payload || x'00' WHERE sequence = 2")
    for damaged in (1, 0):  # once found, it is not found again
        async with launched(tmp_path, "--snapshot-interval-seconds", "3600") as process:
            restore = (await process.get("/stats"))["restore"]
            assert restore["damaged_journal_rows"] == damaged
            assert restore["journal_rows_done"] == 2 + damaged
            metrics = (await process.ask("GET", "/metrics")).text
            assert f'damaged_records{{record="journal"}} {damaged}.0' in metrics
            asked = await process.post("/medians", {"user_ids": ["ann", "bob", "cid"]})
            assert [item["median"] for item in asked["items"]] == [0.5, None, 0.5]
            # What was lost with the row, and its key, may be sent again.
            if not damaged:
                assert (await process.record(batch("bob", ["bob"], [0.5])))["accepted"] == 1
            await process.stop(signal.SIGKILL)
    async with launched(tmp_path) as process:
        assert (await process.get("/users/bob/median"))["median"] == 0.5
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        rows = database.execute("SELECT record, number FROM quarantine").fetchall()
    assert rows == [("journal", 2)]


async def test_a_disk_that_really_fills_up_refuses_events_and_serves_the_rest(
    tmp_path: Path,
) -> None:
    """The kernel refuses to let any file grow beyond a limit, and then lifts it."""
    async with launched(tmp_path, "--snapshot-interval-seconds", "0.05") as process:
        pid = process.process.pid
        taken = 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        refused = 0
        for number in range(200):
            body = {"batches": [batch(f"k{number}", ["ann"] * 1000, [number / 7] * 1000)]}
            answer = await process.ask("POST", "/scores", json=body)
            if answer.status == 503:
                assert answer.body["code"] == "not_durable"
                assert "Retry-After" in answer.headers
                refused += 1
            else:
                taken += 1
            assert (await process.get("/users/ann/median"))["count"] == 1000 * taken
        assert taken > 0
        assert refused > 0
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        await process.ready()
        for number in range(200):
            answer = await process.record(batch(f"k{number}", ["ann"] * 1000, [number / 7] * 1000))
            taken += answer["accepted"] // 1000
        assert taken == 200
        before = await process.get("/users/ann/stats?q=0.25")
        await process.stop(signal.SIGKILL)
    async with launched(tmp_path) as process:
        after = await process.get("/users/ann/stats?q=0.25")
        assert after | {"mean": 0} == before | {"mean": 0}  # whose last bit depends on the order
        assert after["count"] == 200_000


async def test_a_snapshot_that_fails_keeps_everything_for_the_next_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await _record_and_snapshot(server, "first", "ann")
        _run(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON block "
            "BEGIN SELECT RAISE(ABORT, 'no room left'); END",
        )
        await server.record(batch("second", ["bob"], [0.75]))
        assert not await server.service.snapshot()
        assert not await server.service.snapshot()
        snapshot = (await server.get("/stats"))["snapshot"]
        assert (snapshot["failures"], snapshot["error"]) == (2, "no room left")
        answer = await server.problem("GET", "/readyz", 503, "snapshots_fail")
        assert "no room left" in answer.body["detail"]
        # Reading and writing go on.
        assert (await server.record(batch("third", ["bob"], [0.25])))["accepted"] == 1
        assert (await server.get("/users/bob/median"))["median"] == 0.5
        _run(tmp_path, "DROP TRIGGER full")
        assert await server.service.snapshot()
        assert (await server.get("/stats"))["snapshot"]["error"] is None
        await server.get("/readyz")
    async with serving(tmp_path) as server:
        assert (await server.get("/users/bob/median"))["count"] == 2
        again = [batch(key, ["bob"], [9.0]) for key in ("first", "second", "third")]
        assert (await server.record(*again))["duplicates"] == 3


async def test_a_clean_up_that_fails_is_told_once_and_again_when_it_works(tmp_path: Path) -> None:
    def told() -> list[str]:
        return [entry["event"] for entry in logs if "cleaned up" in entry["event"]]

    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path) as server:
            _run(
                tmp_path,
                "CREATE TRIGGER kept BEFORE DELETE ON journal "
                "BEGIN SELECT RAISE(ABORT, 'nothing may go'); END",
            )
            for number in range(3):
                await _record_and_snapshot(server, f"k{number}", "ann")
                assert told() == ["the database cannot be cleaned up, will be tried again"]
                stats = await server.get("/stats")
                assert stats["snapshot"]["clean_up_error"] == "nothing may go"
                assert (stats["snapshot"]["error"], stats["journal"]["rows"]) == (None, number + 1)
            _run(tmp_path, "DROP TRIGGER kept")
            await _record_and_snapshot(server, "last", "ann")
            assert told()[1:] == ["the database is cleaned up again"]
            stats = await server.get("/stats")
            assert (stats["snapshot"]["clean_up_error"], stats["journal"]["rows"]) == (None, 0)


async def test_a_failing_last_snapshot_ends_the_process_with_status_1_and_the_reason(
    tmp_path: Path,
) -> None:
    async with launched(tmp_path, "--snapshot-interval-seconds", "3600") as process:
        _run(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON block "
            "BEGIN SELECT RAISE(ABORT, 'no room left'); END",
        )
        await process.record(batch("k", ["ann"], [0.5]))
        status, stderr = await process.stop(signal.SIGTERM)
    assert status == 1
    assert "error: the last snapshot failed (no room left)" in stderr
    assert "Traceback" not in stderr


async def test_a_database_deleted_while_running_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has been deleted"):  # noqa: PT012 - at the stop
        async with serving(tmp_path) as server:
            (tmp_path / "state.db").unlink()
            await server.record(batch("k", ["ann"], [0.5]))
            assert not await server.service.snapshot()
            answer = await server.problem("GET", "/readyz", 503, "snapshots_fail")
            assert "has been deleted" in answer.body["detail"]


async def test_keys_that_cannot_be_saved_do_not_pile_up_for_ever(tmp_path: Path) -> None:
    with pytest.raises(StorageError):  # noqa: PT012 - at the stop
        async with serving(tmp_path) as server:
            (tmp_path / "state.db").unlink()
            now = time.time()
            for hour in range(3):
                server.set_clock(now + 3600 * hour)
                await server.record(batch(f"k {hour}", ["ann"], [0.5]))
                assert not await server.service.snapshot()
            assert len(server.service.keys.take_unsaved()) == 1


@pytest.mark.parametrize("durability", ["journal", "full", "snapshot"])
async def test_a_full_disk_is_reported_and_mends_itself(tmp_path: Path, durability: str) -> None:
    """SQLite's own limit on the file's size stands for a disk without room."""
    events = 20_000
    large = batch("large", ["ann"] * events, [0.5] * events)
    async with serving(tmp_path, durability=durability) as server:
        await server.record(batch("small", ["bob"], [0.5]))
        connection = server.service.store._connection  # noqa: SLF001 - the limit is a connection's own
        await connection.execute("PRAGMA max_page_count = 1")  # rounds up to the present size
        if durability == "snapshot":
            await server.record(large)
            assert not await server.service.snapshot()
            answer = await server.problem("GET", "/readyz", 503, "snapshots_fail")
        else:
            for _ in range(3):
                answer = await server.problem(
                    "POST", "/scores", 503, "not_durable", json={"batches": [large]}
                )
                assert (await server.get("/users/ann/median"))["count"] == 0
            await server.problem("GET", "/readyz", 503, "not_durable")
            journal = (await server.get("/stats"))["journal"]
            assert (journal["commits"], journal["failures"]) == (1, 3)
        assert "full" in answer.body["detail"]
        assert (await server.get("/users/bob/median"))["median"] == 0.5
        # A batch that is already known needs no room.
        assert (await server.record(batch("small", ["bob"], [0.5])))["duplicates"] == 1
        await connection.execute("PRAGMA max_page_count = 1000000")
        assert await server.service.snapshot()
        await server.get("/readyz")
        if durability != "snapshot":
            assert (await server.record(large))["accepted"] == events
    async with serving(tmp_path) as server:
        assert (await server.get("/users/ann/median"))["count"] == events


async def test_the_background_snapshots_again_after_a_failure(tmp_path: Path) -> None:
    async with serving(tmp_path, snapshot_interval_seconds=0.02) as server:
        _run(
            tmp_path,
            "CREATE TRIGGER full BEFORE INSERT ON block "
            "BEGIN SELECT RAISE(ABORT, 'no room left'); END",
        )
        await server.record(batch("k", ["ann"], [0.5]))
        while not server.service.snapshots.failures:
            await server.get("/healthz")
        _run(tmp_path, "DROP TRIGGER full")
        await server.ready()
        assert server.service.snapshots.last_at is not None
        assert server.service.snapshots.last_at <= time.time()


async def test_a_journal_of_many_windows_comes_back_in_the_memory_of_one(tmp_path: Path) -> None:
    """As after a night in which every snapshot failed."""
    copy, now = tmp_path / "copy.db", time.time()
    async with serving(tmp_path) as server:
        for _ in range(5):
            now += 1000.0
            server.set_clock(now)
            columns = np.full(70_000, now), np.full(70_000, 0.5)  # more than a memtable
            await server.service.record([Batch(f"at {now}", ["ann"] * 70_000, *columns)])
        back_up(tmp_path / "state.db", copy)
    service = await StateService.open(Settings(database=str(copy)), lambda: now)
    held = []

    def clock() -> float:
        held.append(service.windows.live_events)
        return now

    service.clock = clock
    running = asyncio.create_task(service.run())
    async with asyncio.timeout(20):
        while service.phase != "ready":  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0)
    assert service.restored.events == 350_000
    assert max(held) < 150_000
    service.stop()
    await running
    await service.close()


async def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    _run(tmp_path, "PRAGMA user_version = 99; CREATE TABLE theirs (x)")
    with pytest.raises(StorageError, match=r"schema version 99.*another file"):
        await Store.open(tmp_path / "state.db")
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("theirs",)]


async def test_a_file_that_lacks_a_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path):
        pass
    _run(tmp_path, "DROP TABLE key_set")
    with pytest.raises(StorageError, match=r"not those of version 4: key_set.*another file"):
        await StateService.open(Settings(database=str(tmp_path / "state.db")))


async def test_a_file_that_is_not_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("dear diary " * 500)
    with pytest.raises(StorageError, match="not a database"):
        await Store.open(path)
    assert path.read_text() == "dear diary " * 500


async def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "state.db", tmp_path):
        with pytest.raises(StorageError, match="cannot open"):
            await Store.open(path)


@pytest.mark.parametrize("contents", ["not a database " * 500, None])
async def test_the_command_says_in_one_sentence_what_is_wrong_with_the_file(
    tmp_path: Path, contents: str | None
) -> None:
    path = tmp_path / "state.db"
    if contents is None:
        path.mkdir()
    else:
        path.write_text(contents)
    process = await spawn("--port", "0", "--database", str(path))
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode().startswith("error: ")
    assert "setting: database" in stderr.decode()
    assert stderr.count(b"\n") == 1


async def test_a_database_broken_inside_ends_the_process_with_one_sentence(tmp_path: Path) -> None:
    events = 20_000
    async with serving(tmp_path, durability="snapshot") as server:  # no row of a journal in between
        await server.record(batch("large", ["ann"] * events, [0.5] * events))
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as database:
        ((page_size,),) = database.execute("PRAGMA page_size").fetchall()
        ((pages,),) = database.execute("PRAGMA page_count").fetchall()
    with path.open("r+b") as file:
        file.seek(pages // 2 * page_size)
        file.write(bytes(4))  # one of the segment's pages no longer names the next one
    process = await spawn("--port", "0", "--database", str(path), "--log-level", "error")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode().startswith("error: ")
    assert "setting: database" in stderr.decode()
    assert stderr.count(b"\n") == 1
